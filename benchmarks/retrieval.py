"""What share of the evidence does a search find?

Publishes a data set to a stack of its own, waits until all of it is stored and no stage is behind, asks
its questions over Kafka and compares what comes back with the memories that answer them. Nothing is read
beside the stream: what is measured is what a user gets, by the defaults.

    python -m benchmarks.retrieval --data DIR [--users asked] [--questions 300] [--json]
                                   [--rerank] [--diversity 0.3]

`--users asked` leaves out the memories of users about whom nothing is asked: no search can find them, but
the index is smaller and rare words are rarer without them. `--rerank` needs RERANKER_MODEL.

DIR holds memories.jsonl and queries.jsonl, as `benchmarks/dataset.py` says.

For each category: recall@k, the share of the gold among the first k hits, with the interval in which 95 %
of 1,000 bootstrap samples of the questions lie, and MRR. Then the same with one signal left out, or one
alone, weighed anew from what each hit's explanation says: its candidates stay those of all signals.
Beside it, how many of the first ten say what a better one says, the index's size, and what a search takes.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dataset import UNANSWERABLE, Question, memories, questions
from benchmarks.stack import own_stack, tell
from pipeline.contract.flows import flows
from pipeline.domain.lexical import lexical_terms
from pipeline.domain.ranking import SIGNALS
from pipeline.domain.reordering import alike
from pipeline.domain.weights import Weights
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import group_states
from pipeline.kafka.records import group_of
from pipeline.settings import Settings
from producers.client import MemoryClient, NewMemory
from schemas.search import Hit

KS = (1, 5, 10, 20)
DEEP = 100
TIMED = 100
WARMING = 10
AT_ONCE = 8
ALIKE = 0.6
"""Memories that share so much of their words say the same."""
LOOK_EVERY_S = 1.0
BATCH = 1_000


@dataclass(frozen=True)
class How:
    """What is asked for beside the defaults."""

    rerank: bool = False
    diversity: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A question, and what came back: up to DEEP hits, explained."""

    question: Question
    hits: Sequence[Hit]


async def run(
    data: Path, most: int | None, *, only_asked: bool, how: How, folder: Path
) -> dict[str, Any]:
    said, asked = memories(data), questions(data, most)
    there = {memory.user_id for memory in said}
    if only_asked:
        users = {question.user for question in asked}
        said = [memory for memory in said if memory.user_id in users]
    async with own_stack(folder) as stack, MemoryClient(stack.kafka_bootstrap_servers) as memory:
        published_s = await publish(memory, said)
        await caught_up(KafkaConnection(stack.kafka_bootstrap_servers))
        tell(f"asking {len(asked)} questions")
        # The latency first: what was asked before may be remembered.
        took_ms = await timed(memory, asked, how)
        answers = await ask(memory, asked, how)
    tables = {"as served": _as_served(answers)} | ablations(answers)
    return {
        "memories": len(said),
        "users": len({memory.user_id for memory in said}),
        "users_left_out": len(there) - len({memory.user_id for memory in said}),
        "questions": len(asked),
        "how": asdict(how),
        "recall": {name: metrics(ranks) for name, ranks in tables.items()},
        "alike_in_10": statistics.fmean(map(repeated, answers)),
        "published_per_s": len(said) / published_s,
        "index_bytes_a_memory": round(_bytes(folder / "qdrant") / len(said)),
        "search_p50_ms": statistics.median(took_ms),
        "search_p95_ms": statistics.quantiles(took_ms, n=20)[-1],
    }


async def publish(memory: MemoryClient, said: Sequence[NewMemory]) -> float:
    """Seconds until all of it was stored."""
    began = time.perf_counter()
    for start in range(0, len(said), BATCH):
        receipts = await memory.remember_many(said[start : start + BATCH])
        await memory.stored(receipts, timeout_s=3_600)
        tell(f"{start + len(receipts):,} of {len(said):,} memories stored")
    return time.perf_counter() - began


async def caught_up(kafka: KafkaConnection) -> None:
    """Returns once no stage has anything left to read: what enriches memories late has done so."""
    prefix = Settings().topic_prefix
    groups = {group_of(prefix, flow.stage): flow.reads.under(prefix) for flow in flows()}
    quiet = 0
    # Twice: what one stage has just let go, another one looked at before may have to read.
    while quiet < 2:
        states = await group_states(kafka, groups)
        behind = {group: state.lag for group, state in states.items() if state and state.lag}
        quiet = 0 if behind else quiet + 1
        if behind:
            tell(f"still behind: {behind}")
        await asyncio.sleep(LOOK_EVERY_S)


async def ask(memory: MemoryClient, asked: Sequence[Question], how: How) -> list[Asked]:
    """Each question as an application asks it, but for more hits and their explanation."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Asked:
        async with room:
            answered = await memory.search(
                question.text,
                user_id=question.user,
                limit=DEEP,
                explain=True,
                recall=False,
                rerank=how.rerank,
                diversity=how.diversity,
                timeout_s=120,
            )
        if answered.degraded:
            raise SystemExit(f"This would measure another thing: {answered.degraded}.")
        return Asked(question, answered.hits)

    return await asyncio.gather(*map(one, asked))


async def timed(memory: MemoryClient, asked: Sequence[Question], how: How) -> list[float]:
    """Milliseconds of each question, one at a time, over Kafka and back; the first ones left out."""
    took: list[float] = []
    for question in asked[: WARMING + TIMED]:
        began = time.perf_counter()
        await memory.search(
            question.text,
            user_id=question.user,
            recall=False,
            rerank=how.rerank,
            diversity=how.diversity,
            timeout_s=120,
        )
        took.append((time.perf_counter() - began) * 1_000)
    return took[min(WARMING, len(took) // 2) :]


def repeated(asked: Asked) -> int:
    """How many of the first ten hits say what a better one says."""
    terms = [lexical_terms(hit.text) for hit in asked.hits[:10]]
    return sum(
        any(alike(one, better) > ALIKE for better in terms[:place])
        for place, one in enumerate(terms)
    )


Ranks = Sequence[tuple[Question, Sequence[str]]]
"""Each question with the ids that were found, best first."""


def _as_served(answers: Sequence[Asked]) -> Ranks:
    return [(asked.question, [hit.memory_id for hit in asked.hits]) for asked in answers]


def ablations(answers: Sequence[Asked]) -> dict[str, Ranks]:
    """The same candidates, ranked without one signal, and by one alone."""
    all_, none = Weights(), replace(Weights(), **dict.fromkeys(SIGNALS, 0.0))
    counted = [name for name in SIGNALS if getattr(all_, name)]
    tried = {f"without {name}": replace(all_, **{name: 0.0}) for name in counted}
    tried |= {
        f"{name} alone": replace(none, **{name: 1.0}) for name in ("dense", "lexical", "tokens")
    }
    return {name: _ranked(answers, weights) for name, weights in tried.items()}


def _ranked(answers: Sequence[Asked], weights: Weights) -> Ranks:
    def by_score(hit: Hit) -> tuple[float, str]:
        score = sum(getattr(weights, name) * hit.signals.get(name, 0.0) for name in SIGNALS)
        return -score, hit.memory_id

    return [
        (asked.question, [hit.memory_id for hit in sorted(asked.hits, key=by_score)])
        for asked in answers
    ]


def metrics(ranks: Ranks) -> dict[str, dict[str, Any]]:
    """By category, and over all."""
    groups: dict[str, list[tuple[Question, Sequence[str]]]] = defaultdict(list)
    for question, ids in ranks:
        groups[question.category].append((question, ids))
        groups["all"].append((question, ids))
        if question.category != UNANSWERABLE:
            groups["all but adversarial"].append((question, ids))
    # All of them first.
    named = sorted(groups, key=lambda name: (not name.startswith("all"), name))
    return {name: _of_group(groups[name]) for name in named}


def _of_group(group: Sequence[tuple[Question, Sequence[str]]]) -> dict[str, Any]:
    told: dict[str, Any] = {"questions": len(group)}
    for k in KS:
        told[f"recall@{k}"] = _with_interval(
            [len(question.gold & set(ids[:k])) / len(question.gold) for question, ids in group]
        )
    told["mrr"] = _with_interval([_reciprocal(question.gold, ids) for question, ids in group])
    return told


def _reciprocal(gold: frozenset[str], ids: Sequence[str]) -> float:
    return next((1 / place for place, found in enumerate(ids, 1) if found in gold), 0.0)


def _with_interval(values: Sequence[float]) -> dict[str, float]:
    drawn = np.random.default_rng(0).choice(values, (1_000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        name: round(float(v), 4)
        for name, v in (("mean", np.mean(values)), ("low", low), ("high", high))
    }


def _bytes(folder: Path) -> int:
    """What the files take on disk: engines make them larger than what is in them."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def show(results: Mapping[str, Any]) -> None:
    line: Callable[..., str] = "{:<22}{:>6}{:>20}{:>20}{:>20}{:>20}{:>8}".format
    for name, groups in results["recall"].items():
        print(f"\n{name}")
        print(line("", "asked", *(f"recall@{k}" for k in KS), "mrr"))
        for category, told in groups.items():
            cells = [
                f"{told[f'recall@{k}']['mean']:.3f} ({told[f'recall@{k}']['low']:.2f}-"
                f"{told[f'recall@{k}']['high']:.2f})"
                for k in KS
            ]
            print(line(category[:21], told["questions"], *cells, f"{told['mrr']['mean']:.3f}"))
            if name != "as served":
                break
    print()
    for name, value in results.items():
        if isinstance(value, int | float):
            print(f"{name:>22}  {value:,.1f}")
    if left_out := results["users_left_out"]:
        print(f"The memories of {left_out} other users were left out: about them nothing is asked.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="memories.jsonl and queries.jsonl")
    parser.add_argument(
        "--users",
        choices=("all", "asked"),
        default="all",
        help="whose memories are loaded: everybody's, or of those about whom something is asked",
    )
    parser.add_argument("--rerank", action="store_true", help="as RERANKER_MODEL says")
    parser.add_argument("--diversity", type=float, default=0.0, help="0 to 1")
    parser.add_argument("--questions", type=int, help="only so many of them, drawn at random")
    parser.add_argument("--json", action="store_true", help="one object instead of tables")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hybrid-memory-") as folder:
        results = asyncio.run(
            run(
                given.data,
                given.questions,
                only_asked=given.users == "asked",
                how=How(given.rerank, given.diversity),
                folder=Path(folder),
            )
        )
    results["weights"] = asdict(Weights())
    if given.json:
        print(json.dumps(results))
    else:
        show(results)


if __name__ == "__main__":
    main()
