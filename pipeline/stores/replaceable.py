"""An index that is replaced by a fresh one while it answers and is written to.

    adopt: every write goes to both    switch: the fresh one answers, the old one is removed

Between the two whoever fills the fresh one sees to it that it gets what it has missed so far.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import structlog

from pipeline.domain.ranking import Candidate
from pipeline.domain.versions import Outcome
from pipeline.errors import Refused
from pipeline.ports import Embedding, Fingerprint, Past, Question
from pipeline.stores.index import VectorIndex
from schemas.events import Enriched, MemoryTiered
from schemas.search import EventRef, Hit, KnownMemory, Mode, SearchFilter

ADOPTED_FOR_S = 900.0
"""How long both are written to: whoever adopted the fresh one may have died."""

log = structlog.get_logger(__name__)


class Home(Protocol):
    """Where the indexes are kept, each under a name."""

    async def open(self, name: str) -> VectorIndex:
        """The index of this name. Raises Refused where there is none, or it is of another model."""
        ...

    async def keep(self, name: str) -> None:
        """From now on this is the index, after a restart too."""
        ...

    async def remove(self, name: str) -> None: ...

    async def close(self) -> None: ...


@dataclass
class _Held:
    """One open index, and how many calls are under way on it."""

    name: str
    index: VectorIndex
    calls: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    opened_at: float = field(default_factory=time.monotonic)
    misses: bool = False
    """Whether it lacks something that was written meanwhile."""

    @asynccontextmanager
    async def used(self) -> AsyncGenerator[VectorIndex]:
        self.calls += 1
        self.idle.clear()
        try:
            yield self.index
        finally:
            self.calls -= 1
            if not self.calls:
                self.idle.set()

    async def closed(self) -> None:
        """Closes it once nobody uses it."""
        if self.calls:
            await self.idle.wait()
        await self.index.close()


class ReplaceableIndex:
    """MemoryVectors over the index that is current, and the one that is to replace it."""

    def __init__(self, home: Home, name: str, index: VectorIndex) -> None:
        self._home = home
        self._current = _Held(name, index)
        self._fresh: _Held | None = None
        self._changing = asyncio.Lock()

    @property
    def current(self) -> VectorIndex:
        """The index that answers now."""
        return self._current.index

    async def adopt(self, name: str) -> None:
        async with self._changing:
            adopted = self._fresh is not None and not self._fresh.misses and self._fresh.name
            if name in {self._current.name, adopted}:
                return
            await self._abandon()
            self._fresh = _Held(name, await self._home.open(name))
            log.info("writing to a fresh index too", name=name)

    async def switch(self, name: str) -> None:
        async with self._changing:
            if name == self._current.name:
                return
            if self._fresh is None or self._fresh.name != name or self._fresh.misses:
                raise Refused(
                    f"The index {name} is not written to (any more): begin the rebuild again."
                )
            await self._home.keep(name)
            old, self._current, self._fresh = self._current, self._fresh, None
            log.info("switched to the fresh index", name=name)
            await old.closed()
            await self._home.remove(old.name)

    async def abandon(self) -> None:
        async with self._changing:
            await self._abandon()

    async def _abandon(self) -> None:
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            await fresh.closed()

    async def write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        current, fresh = self._current, self._fresh
        async with current.used() as index:
            if fresh is None or fresh.misses:
                return await index.write(changes)
            async with fresh.used():
                outcomes = await index.write(changes)
                await self._too(fresh, lambda: fresh.index.write(changes))
                return outcomes

    async def _too(self, fresh: _Held, write: Callable[[], Awaitable[object]]) -> None:
        try:
            await write()
        except Exception as error:
            # Whatever it is, its folder may be gone: the fresh one is not in use yet.
            if fresh is self._current:
                raise
            # What misses something must not replace what is whole; and nobody else shall suffer from it.
            fresh.misses = True
            log.warning("the fresh index is abandoned", reason=str(error))
        if fresh is not self._current and time.monotonic() - fresh.opened_at > ADOPTED_FOR_S:
            fresh.misses = True
            log.warning("the fresh index is abandoned", reason="nobody has switched to it")

    async def tier(self, told: Sequence[MemoryTiered]) -> None:
        current, fresh = self._current, self._fresh
        async with current.used() as index:
            if fresh is None or fresh.misses:
                await index.tier(told)
                return
            async with fresh.used():
                await index.tier(told)
                await self._too(fresh, lambda: fresh.index.tier(told))

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
        async with self._current.used() as index:
            return await index.search(
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
        async with self._current.used() as index:
            return await index.candidates(
                user_id, question, filter=filter, mode=mode, depth=depth, past=past
            )

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        async with self._current.used() as index:
            return await index.outcomes(user_id, events)

    async def generation(self, user_id: str) -> UUID | None:
        async with self._current.used() as index:
            return await index.generation(user_id)

    async def states(self, user_id: str, keys: Sequence[UUID]) -> Sequence[KnownMemory | None]:
        async with self._current.used() as index:
            return await index.states(user_id, keys)

    async def count(self, user_id: str | None = None) -> int:
        async with self._current.used() as index:
            return await index.count(user_id)

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        async with self._current.used() as index:
            return await index.page(after, limit)

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        async with self._current.used() as index:
            return await index.fingerprints_of(keys)

    async def close(self) -> None:
        async with AsyncExitStack() as closing:
            # The home last, whatever fails before: it holds the lock.
            closing.push_async_callback(self._home.close)
            closing.push_async_callback(self._current.closed)
            closing.push_async_callback(self.abandon)
