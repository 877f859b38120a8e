"""Writes, forgettings, crashes and questions at any await, told apart by a seed, beside an uncached twin.

After every change of a point the twin says what each question would be answered with at that moment. A
cached answer has to be one of the moments between question and answer where one process owns the index. Of
many processes it may be an older one, but none before a write that somebody was told of; and each state in
it must have been the memory's own at some moment in between.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from consumers import query
from pipeline.domain.clock import moment_of
from pipeline.domain.weights import Weights
from pipeline.ending import ended
from pipeline.errors import Unavailable
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.seen import Remembering
from pipeline.ports import Embedding, MemoryVectors
from pipeline.searching.search import SearchPorts, search
from pipeline.stores.answers import KeptAnswers
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.caches import Caches, HotCache
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import GENERATION, MEMORY, IndexShape, Payload, Point
from pipeline.stores.points_in_memory import PointsInMemory
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import Enriched
from schemas.search import Hit, ReplyTo, SearchAnswered, SearchAsked, SearchFilter
from tests.builders import (
    DIMENSIONS,
    MODEL,
    direction,
    enriched,
    forgotten,
    named,
    user_forgotten,
)
from tests.simulation.network import finished
from tests.unit.stores.pausing import PausingPoints

SHAPE = IndexShape(MODEL, DIMENSIONS)
USERS = ("alice", "bob")
QUESTIONS = (
    {"text": "tea or coffee"},
    {"text": "tea or coffee", "mode": "dense"},
    {"text": "tea or coffee", "limit": 1},
    {"text": "tea or coffee", "filter": SearchFilter(speaker="Ana")},
)


class Toy:
    """An embedder that takes no time."""

    model, dimensions = MODEL, DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        return [Embedding(direction(text), np.zeros((0, 64), np.float16)) for text in texts]

    async def close(self) -> None: ...


def question(user_id: str, fields: Mapping[str, Any]) -> SearchAsked:
    now = moment_of(1_700_000_000_000_000)
    envelope: dict[str, Any] = {
        "question_id": uuid4(),
        "asked_at": now,
        "deadline": now + timedelta(seconds=9),
        "reply_to": ReplyTo(topic="answers", partition=0),
    }
    asked: dict[str, Any] = envelope | {"user_id": user_id, "limit": 2} | dict(fields)
    return SearchAsked(**asked)


class WatchedPoints(PausingPoints):
    """Points that are looked at after every change."""

    def __init__(self, random: Random, failing: float) -> None:
        super().__init__(random, failing)
        self._twin = VectorIndex(PointsInMemory(self._points), SHAPE)
        self.moments: list[dict[tuple[str, int], tuple[Hit, ...]]] = []
        self.states: list[set[tuple[str, str, int]]] = []
        """At each moment: user, memory and version of all that can be found."""
        self.seen_by: dict[Any, int] = {}
        """The last moment that a task has seen for itself."""
        self._look()

    @property
    def now(self) -> int:
        return len(self.moments) - 1

    def _look(self) -> None:
        there = [point.payload for point in self._points.values()]
        self.states.append(
            {(p["user_id"], p["memory_id"], p["version"]) for p in there if p["kind"] == MEMORY}
        )
        self.moments.append(
            {
                (user_id, number): tuple(uncached(self._twin, user_id, fields))
                for user_id in USERS
                for number, fields in enumerate(QUESTIONS)
            }
        )

    def changed(self, point: Point) -> None:
        if point.payload["kind"] != GENERATION:
            self._look()
            self.seen_by[asyncio.current_task()] = self.now

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        await self.pause()
        self.seen_by[asyncio.current_task()] = self.now
        return await super().fetch(ids)


LABELS = HeuristicClassifier()
RECORDS = RecordsInMemory()


def uncached(index: VectorIndex, user_id: str, fields: Mapping[str, Any]) -> Sequence[Hit]:
    return finished(
        search(question(user_id, fields), SearchPorts(Toy(), LABELS, RECORDS, index, Weights()))
    ).hits


async def ask(asked: SearchAsked, index: MemoryVectors, caches: Caches) -> SearchAnswered:
    """As a desk does that keeps its answers."""
    remembering = Remembering(Toy(), caches.vectors)
    ports = SearchPorts(remembering, LABELS, RECORDS, index, Weights())
    anew = partial(search, ports=ports)
    return await query.as_before(asked, KeptAnswers.of(caches, index), ports.weights, anew)


class Interleaving:
    """One history. With `owned` one process writes and answers, otherwise two of each."""

    def __init__(self, seed: int, *, owned: bool) -> None:
        self.random = Random(seed)
        self.owned = owned
        self.points = WatchedPoints(self.random, self.random.choice([0.0, 0.0, 0.1]))
        self.kept = self.asked = 0
        self._told: dict[str, int] = defaultdict(int)
        """By user: a moment that everybody has to have seen who asks from now on."""
        self._versions = list(range(1, 200))
        self._events: list[Any] = []
        far = CacheInMemory()
        shared = VectorIndex(self.points, SHAPE, sole_writer=owned)
        self._indexes = [shared if owned else VectorIndex(self.points, SHAPE) for _ in range(2)]
        self._desks = [
            (index, Caches(HotCache(100_000), far, shares_answers=True)) for index in self._indexes
        ]

    async def run(self) -> None:
        writers = [asyncio.create_task(self._writes(n)) for n in (0, 1)]
        askers = [asyncio.create_task(self._asks(n)) for n in (0, 1, 0)]
        try:
            await asyncio.gather(*writers, *askers)
        finally:
            # One that has noticed something leaves the others at work.
            await ended(*writers, *askers)

    async def _writes(self, number: int) -> None:
        for _ in range(5):
            changes = [self._change() for _ in range(self.random.choice([1, 1, 2]))]
            self._events += changes
            writing = asyncio.create_task(self._write(self._indexes[number], changes))
            if self.random.random() < 0.3:
                for _ in range(self.random.randint(1, 25)):
                    await asyncio.sleep(0)
                # The process ends, and another takes over after a while.
                writing.cancel()
                with suppress(asyncio.CancelledError):
                    await writing
                for _ in range(self.random.choice([1, 30])):
                    await asyncio.sleep(0)
                await self._write(self._indexes[number], changes)
            else:
                await writing
            await self.points.pause()

    async def _write(self, index: VectorIndex, changes: Sequence[Enriched]) -> None:
        while True:
            try:
                await index.write(changes)
                break
            except Unavailable:
                await asyncio.sleep(0)
        for change in changes:
            self._tell(change.user_id)

    def _tell(self, user_id: str) -> None:
        seen = self.points.seen_by[asyncio.current_task()]
        self._told[user_id] = max(self._told[user_id], seen)

    def _change(self) -> Any:
        user_id, memory_id = self.random.choice(USERS), self.random.choice("abc")
        # Mostly in order, now and then late.
        version = self._versions.pop(self.random.choice([0, 0, 0, 1, 3]))
        fields: dict[str, Any] = {"user_id": user_id, "version": version}
        match self.random.random():
            case chance if chance < 0.1:
                return user_forgotten(**fields)
            case chance if chance < 0.3:
                return forgotten(memory_id, **fields)
            case _:
                speaker = self.random.choice(["Ana", None])
                return enriched(f"{version}", memory_id=memory_id, speaker=speaker, **fields)

    async def _asks(self, number: int) -> None:
        for _ in range(14):
            with suppress(Unavailable):
                if self._events and self.random.random() < 0.3:
                    await self._ask_whether_stored(number)
                await self._ask(number)
            await self.points.pause()

    async def _ask_whether_stored(self, number: int) -> None:
        event = self.random.choice(self._events[-3:])
        if all(await self._indexes[number].outcomes(event.user_id, [named(event)])):
            self._tell(event.user_id)

    async def _ask(self, number: int) -> None:
        user_id, what = self.random.choice(USERS), self.random.randrange(len(QUESTIONS))
        index, caches = self._desks[number]
        began, told = self.points.now, self._told[user_id]
        asked = question(user_id, QUESTIONS[what])
        answered = await ask(asked, index, caches)
        self.asked += 1
        self.kept += answered.kept
        moments = [moment[user_id, what] for moment in self.points.moments]
        since = began if self.owned else told
        assert answered.hits in moments[since:], f"{user_id} {what}: {answered} is of the past"
        shown = {(user_id, hit.memory_id, hit.version) for hit in answered.hits}
        assert shown <= set().union(*self.points.states[began:]), "shown though it was gone"
