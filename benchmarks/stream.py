"""How much of the bare model's speed is left when memories go through the whole stream?

Publishes N memories to a stack of its own, waits for the last receipt, and encodes the same texts with
the same model in one process, before and after. Then asks questions over Kafka, and asks the same ones
of the model and the index directly. Everything runs on the same cores, one after the other; only the
ratios mean something. The same questions are then asked again with another limit, which finds their
vectors known, and once more as they were, which finds their answers.

Questions come one at a time with a pause between them, as people ask: without it the direct calls find
the model's weights still in the processor's cache, which no question does that comes by itself.

With --turns N they are conversations of N memories each: then every memory comes once more when those after
it are known. `settled_s` is when the last has done so, `enriched_a_memory` how often each was enriched.

    python -m benchmarks.stream [--memories 4000] [--questions 200] [--turns 0] [--data FILE.jsonl] [--json]
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from benchmarks.retrieval import caught_up
from benchmarks.stack import events_in, own_stack, tell
from pipeline.app import Addresses, open_ports
from pipeline.cli.rows import Conversations
from pipeline.domain.wording import worded
from pipeline.embedded import Stack
from pipeline.kafka.connection import KafkaConnection
from pipeline.settings import Settings
from producers.client import MemoryClient, NewMemory
from schemas.search import SearchFilter
from schemas.topics import ENRICHED

EXAMPLES = Path(__file__).parent.parent / "examples"
USER = "benchmark"
PAUSE_S = 0.02
NOWHERE = Addresses(KafkaConnection(""), None, None, None, Path())


def texts(data: Path | None, wanted: int) -> list[str]:
    """`wanted` different texts: of a file of memories, or of the sample, told apart by a number."""
    path = data or EXAMPLES / "memories.jsonl"
    rows = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    if len(rows) >= wanted:
        return rows[:wanted]
    numbered = (f"{row} ({round_})" for round_ in count(1) for row in rows)
    return list(islice(numbered, wanted))


def questions(wanted: int) -> list[str]:
    rows = [json.loads(line) for line in (EXAMPLES / "questions.jsonl").read_text().splitlines()]
    numbered = (f"{row['text']} {n}" for n in count(1) for row in rows)
    return list(islice(numbered, wanted))


async def run(
    wanted: int, asked: int, turns: int, data: Path | None, folder: Path
) -> dict[str, Any]:
    said, questions_ = texts(data, wanted), questions(asked)
    results: dict[str, Any] = {"memories": len(said), "questions": len(questions_)}
    tell("encoding without the stream")
    async with open_ports(Settings(), NOWHERE, ["embedder"]) as ports:
        before_s = await _encode(ports["embedder"], said)
    async with own_stack(folder) as stack:
        tell("publishing")
        async with MemoryClient(stack.kafka_bootstrap_servers) as memory:
            await _warm(memory)
            results |= await _publish(memory, conversations(said, turns), stack)
            tell("asking over Kafka")
            over_kafka = await timed(
                questions_,
                # By meaning alone, as the direct call searches.
                lambda text: memory.search(text, user_id=USER, mode="dense", timeout_s=30),
            )
            tell("asking the same again")
            known = await timed(
                questions_,
                lambda text: memory.search(text, user_id=USER, mode="dense", limit=9, timeout_s=30),
            )
            found_kept: list[bool] = []

            async def again(text: str) -> None:
                answered = await memory.search(text, user_id=USER, mode="dense", timeout_s=30)
                found_kept.append(answered.kept)

            kept = await timed(questions_, again)
            results["answers_kept_share"] = statistics.fmean(found_kept)
            results["vectors_known_p50_ms"] = statistics.median(known)
            results["answer_kept_p50_ms"] = statistics.median(kept)
    tell("encoding without the stream, again")
    where = replace(NOWHERE, qdrant_path=folder / "qdrant")
    async with open_ports(Settings(), where, ["embedder", "vectors"]) as ports:
        embedder, vectors = ports["embedder"], ports["vectors"]

        async def direct(text: str) -> None:
            (question,) = await embedder.embed([text])
            await vectors.search(USER, question, filter=SearchFilter(), limit=10, min_score=None)

        after_s = await _encode(embedder, said)
        results["bare_s"] = (before_s + after_s) / 2
        tell("asking without Kafka")
        directly = await timed(questions_, direct)
    return results | _ratios(results, over_kafka, directly)


async def timed(asked: Sequence[str], ask: Callable[[str], Awaitable[Any]]) -> list[float]:
    """Milliseconds of each question, one after the other, the first ten left out."""
    took: list[float] = []
    for text in asked:
        began = time.perf_counter()
        await ask(text)
        took.append((time.perf_counter() - began) * 1_000)
        await asyncio.sleep(PAUSE_S)
    return took[10:]


async def _warm(memory: MemoryClient) -> None:
    receipt = await memory.remember("Every process has seen one memory", user_id="warm up")
    await receipt.stored(timeout_s=300)
    await memory.search("warm up", user_id="warm up", timeout_s=60)


def conversations(said: Sequence[str], turns: int) -> list[NewMemory]:
    """The texts as memories; with `turns`, as conversations of so many each."""
    if not turns:
        return [NewMemory(text=text, user_id=USER) for text in said]
    follow = Conversations().follow
    return [
        follow(NewMemory(text=text, user_id=USER, run_id=f"conversation {number // turns}"))
        for number, text in enumerate(said)
    ]


async def _publish(
    memory: MemoryClient, said: Sequence[NewMemory], stack: Stack
) -> dict[str, float]:
    """Seconds from the first publish to the last receipt, and until every stage has read everything."""
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    before = await events_in(kafka, ENRICHED)
    began = time.perf_counter()
    receipts = await memory.remember_many(said)
    await memory.stored(receipts, timeout_s=3_600)
    stored_s = time.perf_counter() - began
    await caught_up(kafka)
    return {
        "stream_s": stored_s,
        "settled_s": time.perf_counter() - began,
        "enriched_a_memory": (await events_in(kafka, ENRICHED) - before) / len(said),
    }


async def _encode(embedder: Any, said: Sequence[str]) -> float:
    """Seconds for the same texts, worded as the embedder words them, in batches like its own."""
    now = NewMemory(text="-", user_id=USER)
    spoken = [worded(_stated(now, text)) for text in said]
    await embedder.embed(spoken[:64])
    began = time.perf_counter()
    for start in range(0, len(spoken), 256):
        await embedder.embed(spoken[start : start + 256])
    return time.perf_counter() - began


def _stated(memory: NewMemory, text: str) -> Any:
    from datetime import UTC, datetime

    return memory.model_copy(update={"text": text, "occurred_at": datetime.now(UTC)})


def _ratios(
    results: dict[str, Any], over_kafka: list[float], directly: list[float]
) -> dict[str, Any]:
    def percentile(took: list[float], share: int) -> float:
        return statistics.quantiles(took, n=100)[share - 1]

    p50, p95 = percentile(over_kafka, 50), percentile(over_kafka, 95)
    direct_p50, direct_p95 = percentile(directly, 50), percentile(directly, 95)
    return {
        "stream_per_s": results["memories"] / results["stream_s"],
        "bare_per_s": results["memories"] / results["bare_s"],
        "throughput_ratio": results["bare_s"] / results["stream_s"],
        "search_p50_ms": p50,
        "search_p95_ms": p95,
        "direct_p50_ms": direct_p50,
        "direct_p95_ms": direct_p95,
        "search_p50_ratio": p50 / direct_p50,
        "search_p95_ratio": p95 / direct_p95,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memories", type=int, default=4_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--turns", type=int, default=0, help="make conversations of so many each")
    parser.add_argument("--data", type=Path, help="rows with a text each, instead of the sample")
    parser.add_argument("--json", action="store_true", help="one object instead of lines")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hybrid-memory-") as folder:
        results = asyncio.run(
            run(given.memories, given.questions, given.turns, given.data, Path(folder))
        )
    if given.json:
        print(json.dumps({name: round(value, 3) for name, value in results.items()}))
        return
    for name, value in results.items():
        print(f"{name:>18}  {value:.3f}")


if __name__ == "__main__":
    main()
