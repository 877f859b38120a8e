"""What a client knows of memories: what the record answers, and its own that are not there yet.

Who has just remembered something may revise or forget it at once, before any store has it. What another
client does meanwhile is the record's to tell: what it knows is taken from there.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from pipeline.domain.clock import moment_of
from pipeline.errors import Missing, Unavailable
from pipeline.kafka.asking import Envelope
from producers.receipts import OfMemory
from producers.seen import Seen
from schemas.events import MemoryCaptured, MemoryForgotten, MemoryRevised
from schemas.search import (
    Asked,
    KnownMemory,
    MemoryAnswered,
    MemoryAsked,
    NewestAnswered,
    NewestAsked,
)

MOST_OWN = 1_000
"""Own memories on their way that are kept."""
FIND_PAUSE_S = 0.2
LOOK_EVERY_S = 1.0
FORGET_PATIENCE_S = 2.0
"""How long a forgetting waits to hear what there is to forget."""

Ask = Callable[[Callable[[Envelope], Asked], float], Awaitable[Any]]
"""Asks the query desk within so many seconds. Raises Unavailable where nobody answers."""


class Known:
    """The states that one client can know of, and the newest versions it has `seen`."""

    def __init__(
        self, seen: Seen, ask: Ask, nothing_on_its_way: Callable[[], Awaitable[bool]]
    ) -> None:
        self._seen, self._ask = seen, ask
        self._nothing_on_its_way = nothing_on_its_way
        self._own: dict[tuple[str, str], MemoryCaptured | MemoryRevised] = {}

    def published(self, event: OfMemory) -> None:
        """Our own event is on its way."""
        if not isinstance(event, MemoryForgotten):
            self._own[event.user_id, event.memory_id] = event
            if len(self._own) > MOST_OWN:
                del self._own[next(iter(self._own))]
        if moment_of(event.version) > event.published_at:
            self._seen.add(event.user_id, event.memory_id, event.version)

    def forgets(self, user_id: str, memory_id: str) -> None:
        """Our own is no state of the memory any more: it is about to be forgotten."""
        self._own.pop((user_id, memory_id), None)

    def forgets_user(self, user_id: str) -> None:
        """The same of all of a user's."""
        for key in [key for key in self._own if key[0] == user_id]:
            del self._own[key]

    async def recorded(
        self, user_id: str, memory_id: str, timeout_s: float, as_of: datetime | None = None
    ) -> MemoryAnswered:
        """What the record tells of a memory. Raises Unavailable where nobody answers."""
        answered = await self._ask(
            lambda envelope: MemoryAsked(
                **envelope.fields(), user_id=user_id, memory_id=memory_id, as_of=as_of
            ),
            timeout_s,
        )
        assert isinstance(answered, MemoryAnswered)
        held = answered.memory.version if answered.memory else answered.forgotten_until
        if held:
            self._seen.add(user_id, memory_id, held)
        self._let_go(user_id, memory_id, answered)
        return answered

    async def recorded_of_user(self, user_id: str, timeout_s: float) -> NewestAnswered:
        """How many memories the record holds of a user, and how new the newest is."""
        answered = await self._ask(
            lambda envelope: NewestAsked(**envelope.fields(), user_id=user_id), timeout_s
        )
        assert isinstance(answered, NewestAnswered)
        return answered

    async def is_there(self, user_id: str, memory_id: str) -> tuple[bool | None, bool]:
        """Whether there is such a memory, or our own on its way, and whether it is forgotten.

        None and False where nobody answers.
        """
        try:
            answered = await self.recorded(user_id, memory_id, FORGET_PATIENCE_S)
        except Unavailable:
            return True if (user_id, memory_id) in self._own else None, False
        found = answered.memory is not None or (user_id, memory_id) in self._own
        return found, answered.forgotten and not found

    async def held_of_user(self, user_id: str) -> NewestAnswered | None:
        """What there is of a user to forget; None where nobody answers."""
        with suppress(Unavailable):
            return await self.recorded_of_user(user_id, FORGET_PATIENCE_S)
        return None

    async def newest(
        self, user_id: str, memory_id: str, timeout_s: float
    ) -> KnownMemory | MemoryCaptured | MemoryRevised:
        """The newest state we can know of: the record's, or our own that is still on its way.

        Waits for what may still come. Raises Missing where there is none.
        """
        now = asyncio.get_running_loop().time
        deadline, look_at, nothing_comes = now() + timeout_s, 0.0, False
        while True:
            answered = await self.recorded(user_id, memory_id, timeout_s)
            if own := self._own.get((user_id, memory_id)):
                return own
            if answered.memory is not None:
                return answered.memory
            if answered.forgotten:
                raise Missing(f"Memory {memory_id} was forgotten: remember it anew.")
            if nothing_comes or now() > deadline:
                raise Missing(_nothing_to_revise(memory_id, on_its_way=not nothing_comes))
            if now() > look_at:
                nothing_comes = await self._nothing_on_its_way()
                look_at = now() + LOOK_EVERY_S
                continue
            await asyncio.sleep(FIND_PAUSE_S * (1 + random.random()))  # noqa: S311

    def _let_go(self, user_id: str, memory_id: str, answered: MemoryAnswered) -> None:
        """What is on its way no more: another client may change it, or forget it, and we hear of neither."""
        own = self._own.get((user_id, memory_id))
        if own is not None and not _is_newer(own, answered):
            del self._own[user_id, memory_id]


def _is_newer(own: MemoryCaptured | MemoryRevised, held: MemoryAnswered) -> bool:
    """Whether our own event, still on its way, will replace what the record holds."""
    if held.memory is not None:
        return not own.if_absent and own.version > held.memory.version
    yields = held.forgotten and own.if_absent
    return not yields and own.version > held.forgotten_until


def _nothing_to_revise(memory_id: str, *, on_its_way: bool) -> str:
    told = f"There is no memory {memory_id} of this user to revise"
    if on_its_way:
        return f"{told} yet. If it was published a moment ago, wait for its receipt first."
    return f"{told}, and none is on its way."
