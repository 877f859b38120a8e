"""Looking first where vectors in the process point never changes what is found."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ending import ended
from pipeline.errors import Unavailable
from pipeline.ports import Floats, Question
from pipeline.stores import matrix
from pipeline.stores.caches import Tally
from pipeline.stores.generations import OwnGenerations
from pipeline.stores.hot import HotVectors, VectorPages
from pipeline.stores.index import VectorIndex
from pipeline.stores.matrix import KEY_BYTES, InNumpy, InTorch
from pipeline.stores.points import IndexShape, Point
from pipeline.stores.points_in_memory import PointsInMemory
from pipeline.stores.scope import of_user
from schemas.events import SparseVector
from schemas.search import Mode, SearchFilter
from tests.builders import (
    DIMENSIONS,
    MODEL,
    direction,
    enriched,
    forgotten,
    question,
    tiered,
    user_forgotten,
)
from tests.simulation.network import finished
from tests.unit.stores.pausing import PausingPoints

SHAPE = IndexShape(MODEL, DIMENSIONS)
ROOM = 1_000_000
WORDS = SparseVector(indices=(7,), values=(1.0,))
FILTERS = (SearchFilter(), SearchFilter(speaker="Ana"), SearchFilter(tiers=("archived",)))


@pytest.fixture(scope="module", autouse=True)
def _few_points() -> Iterator[None]:
    """So few are read to see whether a tie goes on that a user of ten memories has more than that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stores.finding._SPARE", 1)
        yield


def hot_index(
    points: PointsInMemory, *, max_bytes: int = ROOM, **wanted: Any
) -> tuple[VectorIndex, HotVectors, Tally]:
    """One whose users are hot once they have asked."""
    tally = Tally("memories")
    defaults: dict[str, Any] = {"min_rows": 1, "questions": 1}
    kept = HotVectors(points, max_bytes, tally, **(defaults | wanted))
    return VectorIndex(points, SHAPE, sole_writer=True, hot=kept), kept, tally


async def found(
    index: VectorIndex, text: str, *, user: str = "alice", what: int = 0, mode: Mode = "hybrid"
) -> Sequence[Any]:
    asked = Question(question(text), WORDS)
    told = await index.candidates(user, asked, filter=FILTERS[what], mode=mode, depth=1)
    return sorted((c.memory["memory_id"], c.memory["version"], dict(c.signals)) for c in told)


async def filled(kept: HotVectors) -> None:
    """Returns when every fill that has begun is done."""
    await asyncio.gather(*kept._fills)  # pyright: ignore[reportPrivateUsage]


def memories(count: int, user: str = "alice", begin: int = 1) -> list[Any]:
    return [
        enriched(f"{user} {n}", user_id=user, memory_id=f"m{n}", version=begin + n)
        for n in range(count)
    ]


# One thing after the other, beside an index without


_MEMORY = st.sampled_from([f"m{n}" for n in range(12)])
_USER = st.sampled_from(["alice", "bob"])
_STEP = st.one_of(
    st.tuples(st.just("write"), _USER, _MEMORY, st.sampled_from(["Ana", None]), st.integers(0, 3)),
    st.tuples(st.just("forget"), _USER, _MEMORY),
    st.tuples(st.just("forget user"), _USER),
    st.tuples(st.just("archive"), _USER, _MEMORY),
    st.tuples(st.just("ask"), _USER, st.integers(0, 5), st.sampled_from([0, 0, 0, 1, 2])),
    st.tuples(st.just("ask"), _USER, st.integers(0, 5), st.just(0)),
)


def _change(number: int, step: Any) -> Any:
    match step:
        case "write", user, memory_id, speaker, late:
            fields: dict[str, Any] = {"user_id": user, "memory_id": memory_id}
            version = 200 + number - 50 * late
            return enriched(f"{number}", version=version, speaker=speaker, **fields)
        case "forget", user, memory_id:
            return forgotten(memory_id, user_id=user, version=200 + number)
        case "forget user", user:
            return user_forgotten(user, version=150 + number)
        case _, user, memory_id:
            away = {"reason": "archived", "archived_version": 10**6, "version": 200 + number}
            return tiered(memory_id, user_id=user, **away)
        case _:
            raise AssertionError(step)


async def _both(steps: Sequence[Any]) -> int:
    """Does the same to both and compares; how often vectors in the process pointed the way."""
    index, kept, tally = hot_index(PointsInMemory())
    plain = VectorIndex(PointsInMemory(), SHAPE, sole_writer=True)
    both = (index, plain)
    for each in both:
        await each.write([*memories(10, "alice", 100), *memories(10, "bob", 100)])
    for number, step in enumerate(steps):
        if step[0] == "ask":
            _, user, text, what = step
            told = [await found(each, f"{text}", user=user, what=what) for each in both]
            assert told[0] == told[1], f"step {number}: {step}"
            await filled(kept)
            continue
        change = _change(number, step)
        for each in both:
            await (each.tier if step[0] == "archive" else each.write)([change])
    await kept.close()
    return tally.hits


@settings(max_examples=40, deadline=None)
@given(st.lists(_STEP, max_size=30))
def test_the_same_is_found_as_without(steps: Sequence[Any]) -> None:
    asyncio.run(_both([("ask", "alice", 0, 0), *steps, ("ask", "alice", 1, 0)]))


async def test_vectors_in_the_process_do_point_the_way() -> None:
    asks = [("ask", "alice", n, 0) for n in range(5)]
    assert await _both([*asks, ("write", "alice", "m3", None, 0), *asks]) == 9


# Anything between any two awaits


class WatchedPoints(PausingPoints):
    """Points that are looked at after every change."""

    def __init__(self, random: Random, failing: float) -> None:
        super().__init__(random, failing)
        self.moments: list[dict[int, Sequence[Any]]] = []
        self.look()

    def look(self) -> None:
        twin = VectorIndex(PointsInMemory(self._points), SHAPE)
        self.moments.append(
            {what: finished(found(twin, "0", what=what, mode="dense")) for what in (0, 1)}
        )

    def changed(self, point: Point) -> None:
        self.look()


class History:
    """One history: two write, two ask."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.points = WatchedPoints(self.random, 0.0)
        self.index, self.kept, self.tally = hot_index(self.points)
        self._versions = list(range(100, 300))

    async def run(self) -> None:
        await self.index.write(memories(8))
        self.points.failing = self.random.choice([0.0, 0.0, 0.1])
        hands = [self._writes(), self._writes(), self._asks(), self._asks()]
        working = [asyncio.create_task(hand) for hand in hands]
        try:
            await asyncio.gather(*working)
            await filled(self.kept)
            there = {key async for key, _ in _all_vectors(self.points)}
            for rows in self.kept._users.values():  # pyright: ignore[reportPrivateUsage]
                assert set(rows.keys) == there, "not what is there"
        finally:
            # One that has noticed something leaves the others at work.
            await ended(*working)
            await self.kept.close()

    async def _writes(self) -> None:
        for _ in range(6):
            changes = [self._change() for _ in range(self.random.choice([1, 1, 3]))]
            writing = asyncio.create_task(self.index.write(changes))
            if self.random.random() < 0.2:
                await self._steps(self.random.randint(1, 25))
                writing.cancel()
            with suppress(Unavailable, asyncio.CancelledError):
                await writing
            await self._steps(self.random.choice([0, 5, 100]))

    async def _steps(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    def _change(self) -> Any:
        memory_id = f"m{self.random.randrange(10)}"
        version = self._versions.pop(self.random.choice([0, 0, 0, 1, 3]))
        match self.random.random():
            case chance if chance < 0.05:
                return user_forgotten(version=version - 4)
            case chance if chance < 0.25:
                return forgotten(memory_id, version=version)
            case _:
                who = self.random.choice(["Ana", None])
                return enriched(f"{version}", memory_id=memory_id, version=version, speaker=who)

    async def _asks(self) -> None:
        for _ in range(25):
            what = self.random.choice([0, 0, 1])
            began = len(self.points.moments) - 1
            told = await found(self.index, "0", what=what, mode="dense")
            moments = [each[what] for each in self.points.moments[began:]]
            assert told in moments, "of no moment"
            # Whoever was let go is filled again at the next question.
            self.kept._askers.clear()  # pyright: ignore[reportPrivateUsage]
            await self.points.pause()


async def _all_vectors(points: VectorPages) -> AsyncGenerator[tuple[UUID, Floats]]:
    after: UUID | None = None
    while page := await points.vectors(of_user("alice"), after):
        after = page[-1][0]
        for each in page:
            yield each


async def _histories(seeds: Collection[int]) -> int:
    hits = 0
    for seed in seeds:
        history = History(seed)
        try:
            await history.run()
        except AssertionError as error:
            error.add_note(f"History({seed})")
            raise
        hits += history.tally.hits
    return hits


async def test_whatever_happens_meanwhile_what_is_found_is_of_one_moment() -> None:
    assert await _histories(range(10)) > 10 * 5, "hardly ever looked at, so hardly tested"


# Ways to break it, each of which has to be noticed.


def _nothing(*_: Any) -> None: ...


@asynccontextmanager
async def _unguarded(self: Any, users: Collection[str]) -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def _trusting(self: Any, users: Collection[str]) -> AsyncGenerator[None]:
    async with self._changing:
        yield


async def _forgetting_nobody(self: Any, user_id: str) -> None: ...


async def _always(self: Any, user_id: str) -> UUID:
    return UUID(int=1)


@pytest.mark.parametrize(
    ("target", "name", "broken"),
    [
        (HotVectors, "tell", _nothing),
        (HotVectors, "writing", _unguarded),
        (HotVectors, "writing", _trusting),
        (HotVectors, "forget", _forgetting_nobody),
        (OwnGenerations, "of", _always),
    ],
)
async def test_what_would_break_it_is_noticed(
    monkeypatch: pytest.MonkeyPatch, target: Any, name: str, broken: Any
) -> None:
    monkeypatch.setattr(target, name, broken)
    with pytest.raises(AssertionError, match=r"of no moment|not what is there"):
        await _histories(range(400))


# The budget


def held(kept: HotVectors) -> list[str]:
    return list(kept._users)  # pyright: ignore[reportPrivateUsage]


async def asked(index: VectorIndex, kept: HotVectors, *users: str) -> None:
    for user in users:
        await found(index, "0", user=user)
        await filled(kept)


async def test_the_least_recently_asked_user_goes_when_there_is_no_room() -> None:
    points = PointsInMemory()
    one = 10 * (4 * DIMENSIONS + KEY_BYTES)
    index, kept, tally = hot_index(points, max_bytes=int(2.5 * one))
    for user in "abc":
        await index.write(memories(8, user))
    await asked(index, kept, "a", "b", "a", "c")
    assert held(kept) == ["a", "c"]
    assert 2 * one >= tally.held_bytes > one
    await kept.close()
    assert tally.held_bytes == 0


async def test_who_does_not_fit_alone_costs_nobody_a_place() -> None:
    index, kept, _ = hot_index(PointsInMemory(), max_bytes=20 * (4 * DIMENSIONS + KEY_BYTES))
    await index.write([*memories(8, "small"), *memories(30, "large")])
    await asked(index, kept, "small", "large")
    assert held(kept) == ["small"]


async def test_who_grows_out_of_the_budget_goes() -> None:
    index, kept, tally = hot_index(PointsInMemory(), max_bytes=20 * (4 * DIMENSIONS + KEY_BYTES))
    await index.write(memories(8))
    await asked(index, kept, "alice")
    await index.write(memories(30))
    assert held(kept) == []
    assert tally.held_bytes == 0


async def test_only_who_has_much_and_asks_often_is_kept() -> None:
    index, kept, tally = hot_index(PointsInMemory(), min_rows=9, questions=2)
    await index.write([*memories(8, "small"), *memories(9, "large")])
    await asked(index, kept, "small", "small", "small", "large")
    assert held(kept) == []
    await asked(index, kept, "large", "large")
    assert held(kept) == ["large"]
    assert (tally.hits, tally.misses) == (1, 0), "the small are no misses"


async def test_erased_is_erased_in_memory_too() -> None:
    index, kept, _ = hot_index(PointsInMemory())
    await index.write(memories(8))
    await asked(index, kept, "alice")
    (mine,) = kept._users.values()  # pyright: ignore[reportPrivateUsage]
    rows = mine._vectors  # pyright: ignore[reportPrivateUsage]
    gone = direction("alice 3")
    assert np.isclose(rows, gone).all(axis=1).sum() == 1
    await index.write([forgotten("m3", version=100)])
    assert not np.isclose(rows, gone).all(axis=1).any()
    await index.write([user_forgotten(version=200)])
    assert held(kept) == []


async def test_a_fill_ends_with_the_index() -> None:
    points = PausingPoints(Random(1), 0.0)
    index, kept, _ = hot_index(points)
    await index.write(memories(8))
    before = asyncio.all_tasks()
    await found(index, "0")
    assert asyncio.all_tasks() > before
    await index.close()
    assert asyncio.all_tasks() <= before
    assert held(kept) == []


# Products


class Counted(InNumpy):
    def __init__(self) -> None:
        self.products: list[int] = []

    def nearest(self, matrix: Any, questions: Any, count: int) -> Any:
        self.products.append(len(questions))
        return super().nearest(matrix, questions, count)


async def test_who_waits_together_is_answered_by_one_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matrix, "_ON_THE_LOOP", 0)
    by = Counted()
    index, kept, _ = hot_index(PointsInMemory(), by=by)
    plain = VectorIndex(index.points, SHAPE)
    await index.write(memories(8))
    await asked(index, kept, "alice")
    texts = [f"{n}" for n in range(16)]
    told = await asyncio.gather(*[found(index, text) for text in texts])
    assert told == [await found(plain, text) for text in texts]
    assert by.products == [1, 15]


async def test_an_asker_who_goes_away_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "_ON_THE_LOOP", 0)
    index, kept, _ = hot_index(PointsInMemory())
    await index.write(memories(8))
    await asked(index, kept, "alice")
    first, *others = [asyncio.create_task(found(index, f"{n}")) for n in range(4)]
    await asyncio.sleep(0)
    first.cancel()
    plain = VectorIndex(index.points, SHAPE)
    assert await asyncio.gather(*others) == [await found(plain, f"{n}") for n in (1, 2, 3)]


def _in_torch() -> InTorch:
    import torch

    return InTorch(torch, "cpu")


@pytest.mark.parametrize("by", [InNumpy, _in_torch])
def test_the_nearest_rows_and_what_is_beyond(by: Callable[[], Any]) -> None:
    arithmetic, random = by(), np.random.default_rng(3)
    vectors = random.normal(size=(50, 8)).astype(np.float32)
    matrix = arithmetic.empty(50, 8)
    for row, vector in enumerate(vectors):
        matrix[row] = arithmetic.placed(vector)
    for questions in (vectors[:1], vectors[:7]):
        best, beyond = arithmetic.nearest(matrix, questions, 5)
        scores = np.sort(questions @ vectors.T, axis=1)
        right = np.argsort(-(questions @ vectors.T), axis=1)[:, :5]
        assert [set(each) for each in best.tolist()] == [set(each) for each in right.tolist()]
        assert beyond == pytest.approx(scores[:, -5], abs=1e-5)
