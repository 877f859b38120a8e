"""A slice's steps, published a chunk at a time, when whoever strikes wants something to be in flight."""

import asyncio
from collections import deque
from collections.abc import Sequence

from pipeline.chaos.plan import Step
from pipeline.chaos.publishing import Publisher

CHUNK = 40
"""Steps that are published side by side."""
_MOST_ASKING = 12
"""Questions side by side, where they are asked again."""


class Feed:
    """Publishes slice after slice in tasks of the group; a call publishes the next steps."""

    def __init__(self, publisher: Publisher, publishing: asyncio.TaskGroup) -> None:
        self._publisher, self._publishing = publisher, publishing
        self._chunks: deque[Sequence[Step]] = deque()
        self._again: deque[Step] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    def take(self, steps: Sequence[Step], *, ask_again: bool) -> None:
        """The next slice; with `ask_again` its questions are asked in turn for as long as it is fed."""
        self._chunks = deque(steps[i : i + CHUNK] for i in range(0, len(steps), CHUNK))
        self._again = deque(step for step in steps if ask_again and step.kind == "asked")

    def __call__(self) -> bool:
        """Publishes the next steps, and asks again; whether there was any of that."""
        there_is = bool(self._chunks or self._again)
        if self._chunks:
            task = self._publishing.create_task(self._publisher.publish(self._chunks.popleft()))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if self._again and self._publisher.asking < _MOST_ASKING:
            self._publishing.create_task(self._publisher.ask([self._again[0]]))
            self._again.rotate(-1)
        return there_is

    async def rest(self) -> None:
        """Publishes what is left of the slice."""
        while self._chunks:
            await self._room()
            self()

    async def _room(self) -> None:
        """Until few calls wait for Kafka: thousands side by side would each go on when they can,
        and the order of a plan would be lost on what is quick, poison first."""
        while len(self._under_way) >= CHUNK:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
