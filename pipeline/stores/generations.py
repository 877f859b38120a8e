"""Whether an answer given before still holds: a user's generation, random, and another after every write.

    write    the points -> a fresh generation -> both are durable -> only now is anybody told
    answer   the generation -> what was kept under it, or else: search, and keep it under that generation

An answer is kept under the generation that was read before its search, so it contains every write that was
told of until then; and a write that is told of later makes another generation. A generation never comes
back, as a counter would that was lost and began anew.

Where several processes write, the generation is a point in the index itself, beside what it speaks of: a
backup, a rebuild, a replica or a lost disk has both or neither. Where one process alone writes and answers,
it keeps them in its memory, and knows more: while a write is under way there is none, and nothing is kept.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol
from uuid import UUID, uuid4

from cachetools import LRUCache

from pipeline.domain.identity import generation_key
from pipeline.stores.payloads import generation, generation_point
from pipeline.stores.points import Payload, Point

_MOST_USERS: Final = 100_000
"""Whose generations one process keeps; beyond that the least recently asked users begin anew."""


class Generations(Protocol):
    """The generations of an index's users."""

    async def of(self, user_id: str) -> UUID | None:
        """None while no answer may be kept, or told from what was kept. May raise Unavailable."""
        ...

    def changing(self, users: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Around every write: when the block has ended, these users have another generation.

        May raise Unavailable at its end: then nobody may be told that the write is done.
        """
        ...

    async def before_telling(self, user_id: str) -> None:
        """To be awaited between seeing that a write is there, and telling somebody so.

        Its writer may have died before it made the fresh generation. May raise Unavailable.
        """
        ...


class OwnGenerations:
    """Of an index that only this process writes to."""

    def __init__(self) -> None:
        self._known: LRUCache[str, UUID] = LRUCache(_MOST_USERS)
        self._writes: Counter[str] = Counter()
        """Under way, by user."""

    async def of(self, user_id: str) -> UUID | None:
        if user_id in self._writes:
            return None
        if user_id not in self._known:
            self._known[user_id] = uuid4()
        return self._known[user_id]

    @asynccontextmanager
    async def changing(self, users: Collection[str]) -> AsyncGenerator[None]:
        self._writes.update(users)
        try:
            yield
        finally:
            # However it ended: some of it may be there.
            for user_id in users:
                self._known.pop(user_id, None)
                self._writes[user_id] -= 1
                if not self._writes[user_id]:
                    del self._writes[user_id]

    async def before_telling(self, user_id: str) -> None:
        """Nothing to do: there is no generation until the writer is done, and another one after it."""


class PointStore(Protocol):
    """What is needed of an engine."""

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]: ...

    async def put(self, points: Sequence[Point]) -> None: ...


class SharedGenerations:
    """Of an index that many processes write to: a point for each user who was ever written to."""

    def __init__(self, points: PointStore) -> None:
        self._points = points

    async def of(self, user_id: str) -> UUID | None:
        key = generation_key(user_id)
        there = await self._points.fetch([key])
        return generation(there[key]) if key in there else None

    @asynccontextmanager
    async def changing(self, users: Collection[str]) -> AsyncGenerator[None]:
        yield
        # Also where nothing was written: what is repeated may have been cut short just before this.
        await self._points.put([generation_point(user_id, uuid4()) for user_id in users])

    async def before_telling(self, user_id: str) -> None:
        await self._points.put([generation_point(user_id, uuid4())])
