"""The index behind its port, whichever engine keeps the points: Qdrant, Qdrant Edge, or a dict.

A batch is read, decided and written: what the engine holds of the memories in it, `decide`, one guarded
write. Nothing is written before every vector in the batch was found to fit. Searches are `Finding`'s.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from pipeline.domain.identity import memory_key, user_key
from pipeline.domain.ranking import Candidate
from pipeline.domain.versions import Outcome, erased, runs
from pipeline.errors import Unavailable
from pipeline.ports import Embedding, Fingerprint, Past, Question
from pipeline.stores.finding import Finding
from pipeline.stores.fitting import fitting_vectors
from pipeline.stores.found import known_memory
from pipeline.stores.generations import Generations, OwnGenerations, SharedGenerations
from pipeline.stores.hot import HotVectors
from pipeline.stores.lives_in_points import amendment, hides, unheard_of, with_life
from pipeline.stores.payloads import fingerprint, held, point, watermark, watermark_point
from pipeline.stores.points import IndexShape, Payload, Points
from pipeline.stores.scope import ANY_POINT, counted, erased_by
from pipeline.stores.states import (
    Erased,
    State,
    Watermark,
    decide,
    known_of,
    named_user,
    outcome_of,
)
from schemas.events import Enriched, MemoryEnriched, MemoryTiered, UserForgotten
from schemas.search import EventRef, Hit, KnownMemory, Mode, SearchFilter

_TRIES = 10
"""How often a write is tried that another hand has come in between."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class VectorIndex:
    """MemoryVectors over any engine."""

    points: Points
    shape: IndexShape
    sole_writer: bool = False
    """Whether nobody but this object writes to the points."""
    now: Callable[[], datetime] = _utc_now
    """Tiers are left at moments that nobody writes down."""
    hot: HotVectors | None = None
    """Of users who ask often; for a sole writer only."""
    generations: Generations = field(init=False)
    finding: Finding = field(init=False)

    def __post_init__(self) -> None:
        made = OwnGenerations() if self.sole_writer else SharedGenerations(self.points)
        finding = Finding(self.points, self.shape, made, self.now, self.hot)
        object.__setattr__(self, "generations", made)
        object.__setattr__(self, "finding", finding)

    async def write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        for change in changes:
            if isinstance(change, MemoryEnriched):
                fitting_vectors(change, self.shape)
        async with self.generations.changing({change.user_id for change in changes}):
            outcomes = await self._write(changes)
        await self.points.settle()
        return outcomes

    async def _write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for run in runs(changes):
            match run[0]:
                case UserForgotten() as forgetting:
                    outcomes.append(await self._forget_user(forgetting))
                case _:
                    outcomes.extend(await self._write_memories(run))
        return outcomes

    async def _write_memories(self, run: Sequence[Enriched]) -> Sequence[Outcome]:
        keys = {
            memory_key(event.user_id, event.memory_id)
            for event in run
            if not isinstance(event, UserForgotten)
        }
        users = {user_key(event.user_id): event.user_id for event in run}
        there = await self.points.fetch([*keys, *users])
        decided = decide(
            run,
            known={key: held(there[key]) for key in keys & there.keys()},
            forgotten={users[key]: watermark(there[key]) for key in users.keys() & there.keys()},
        )
        if anew := {k: s for k, s in decided.forgotten.items() if decided.writes[k] is not s}:
            # Forgotten and remembered again in one batch: nothing of before is carried over.
            await self._put(anew, there)
            there = {**there, **await self.points.fetch(list(anew))}
        await self._put(decided.writes, there)
        return decided.outcomes

    async def _put(self, states: Mapping[UUID, State], there: Mapping[UUID, Payload]) -> None:
        """Writes states, each with the life that its memory has, however often that changes meanwhile."""
        for _ in range(_TRIES):
            if not states:
                return
            there = await self._put_once(states, there)
            states = {
                key: states[key]
                for key, payload in there.items()
                if held(payload).place < known_of(states[key]).place
            }
        raise Unavailable(
            "The lives of these memories change faster than the memories are written."
        )

    async def _put_once(
        self, states: Mapping[UUID, State], there: Mapping[UUID, Payload]
    ) -> Mapping[UUID, Payload]:
        """What is there then."""
        points = {
            key: with_life(point(state, self.shape), there.get(key))
            for key, state in states.items()
        }
        async with self._writing({state.user_id for state in states.values()}):
            await self.points.put(list(points.values()))
            there = await self.points.fetch(list(points))
            for key, state in states.items():
                # What is newer was told of by whoever wrote it.
                if self.hot and held(there[key]).place == known_of(state).place:
                    self.hot.tell(state.user_id, points[key])
        return there

    def _writing(self, users: Collection[str]) -> AbstractAsyncContextManager[None]:
        return self.hot.writing(users) if self.hot else nullcontext()

    async def tier(self, told: Sequence[MemoryTiered]) -> None:
        keys = {memory_key(each.user_id, each.memory_id) for each in told}
        users = {user_key(each.user_id) for each in told}
        there = await self.points.fetch([*keys, *users]) if told else {}
        # Tiers of what is found are read anew for each answer, and each answer is a recall: renewed for
        # every one of them, no generation would outlive a question.
        seen = {each.user_id for each in told if each.reason != "recalled"}
        news = unheard_of(told, there)
        seen |= {each.user_id for key, each in news.items() if hides(there[key], each)}
        async with self.generations.changing(seen):
            await self._amend(told, there)
        await self.points.settle()

    async def _amend(self, told: Sequence[MemoryTiered], there: Mapping[UUID, Payload]) -> None:
        for _ in range(_TRIES):
            news = unheard_of(told, there)
            if not news:
                return
            await self.points.amend([amendment(each, k, there[k]) for k, each in news.items()])
            there = {**there, **await self.points.fetch(list(news))}
        raise Unavailable("These memories change faster than their tiers are written.")

    async def _forget_user(self, forgetting: UserForgotten) -> Outcome:
        try:
            return await self._erase(forgetting)
        finally:
            if self.hot:
                await self.hot.forget(forgetting.user_id)

    async def _erase(self, forgetting: UserForgotten) -> Outcome:
        where, mark = erased_by(forgetting), watermark_point(forgetting)
        if await self._forgotten_beyond(forgetting):
            return "superseded"
        after: UUID | None = None
        while page := await self.points.page(where, after):
            after = page[-1][0]
            going = [
                point(
                    Erased(payload["user_id"], payload["memory_id"], watermark(mark.payload)),
                    self.shape,
                )
                for _, payload in page
                if held(payload) != erased(forgetting.version)
            ]
            if going:
                await self.points.put(going)
        # The watermark last: who sees it may rely on everything being gone.
        await self.points.put([mark])
        return "stored"

    async def _forgotten_beyond(self, forgetting: UserForgotten) -> bool:
        mark = await self._watermark(forgetting.user_id)
        return mark is not None and mark.version > forgetting.version

    async def _watermark(self, user_id: str) -> Watermark | None:
        key = user_key(user_id)
        there = await self.points.fetch([key])
        return watermark(there[key]) if key in there else None

    async def search(
        self,
        user_id: str,
        question: Embedding,
        *,
        filter: SearchFilter,
        limit: int,
        min_score: float | None,
        past: Past | None = None,
    ) -> Sequence[Hit]:
        return await self.finding.closest(
            user_id, question, filter=filter, limit=limit, min_score=min_score, past=past
        )

    async def candidates(
        self,
        user_id: str,
        question: Question,
        *,
        filter: SearchFilter,
        mode: Mode,
        depth: int,
        past: Past | None = None,
    ) -> Sequence[Candidate]:
        return await self.finding.candidates(
            user_id, question, filter=filter, mode=mode, depth=depth, past=past
        )

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        mark_key = user_key(named_user(user_id))
        keys = [
            memory_key(user_id, event.memory_id) if event.memory_id is not None else mark_key
            for event in events
        ]
        there = await self.points.fetch(list({*keys, mark_key}))
        mark = watermark(there[mark_key]) if mark_key in there else None
        told: list[Outcome | None] = [
            _outcome(event, there.get(key), mark) for event, key in zip(events, keys, strict=True)
        ]
        if any(told):
            await self.generations.before_telling(user_id)
        return told

    async def generation(self, user_id: str) -> UUID | None:
        return await self.generations.of(named_user(user_id))

    async def states(self, user_id: str, keys: Sequence[UUID]) -> Sequence[KnownMemory | None]:
        user = named_user(user_id)
        there = await self.points.read(keys) if keys else {}
        now = self.now()
        return [known_memory(user, there.get(key, {}), now) for key in keys]

    async def count(self, user_id: str | None = None) -> int:
        return await self.points.count(counted(user_id))

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        told: list[Fingerprint] = []
        while len(told) < limit and (page := await self.points.page(ANY_POINT, after)):
            after = page[-1][0]
            told += [fingerprint(key, payload) for key, payload in page]
        return told[:limit]

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        there = await self.points.fetch(keys) if keys else {}
        return [fingerprint(key, payload) for key, payload in there.items() if "kind" in payload]

    async def close(self) -> None:
        if self.hot:
            await self.hot.close()
        await self.points.close()


def _outcome(event: EventRef, payload: Payload | None, mark: Watermark | None) -> Outcome | None:
    if payload is None:
        return outcome_of(event, None, mark, was_read=False)
    was_read = payload["event_id"] == str(event.event_id)
    return outcome_of(event, held(payload), mark, was_read=was_read)
