"""The fresh index takes the place of the old one, and nobody's search or write falls between the two.

Where the index has an owner (Edge), the owner opens the fresh one and writes to both; what came to the
log since the filling ended is published to it once more; then the owner switches. On a server the alias
is switched, and the rest of the log is written after it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pipeline.errors import PipelineError, Unavailable
from pipeline.kafka.asking import Asking
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.readers import group_readers, skip_to
from pipeline.kafka.records import group_of
from pipeline.kafka.replaying import replayed
from pipeline.ports import MemoryVectors
from pipeline.verifying.filling import Filling
from pipeline.verifying.repairing import Mending
from schemas.search import IndexReplaceAsked

TIMEOUT_S = 60.0
PATIENCE_S = 60.0
WRITER = "vector_writer"


class Fresh(Protocol):
    """A fresh index, and how it takes the place of the old one."""

    @property
    def index(self) -> MemoryVectors: ...

    async def replace(self, filling: Filling) -> None:
        """From now on the fresh index answers, and lacks nothing. Raises Unavailable, Refused."""
        ...


@dataclass
class OfAnOwner:
    """A folder beside the one that another process owns."""

    index: MemoryVectors
    name: str
    asking: Asking
    mending: Mending
    connection: KafkaConnection
    prefix: str

    async def replace(self, filling: Filling) -> None:
        await filling.catch_up()
        # One process opens it at a time.
        await self.index.close()
        try:
            await self._tell("adopt")
            await self._publish_the_rest(filling)
            await self._tell("switch")
        except BaseException:
            # Who does not hear of it goes back to one index after a while.
            with suppress(PipelineError):
                await asyncio.shield(self._tell("abandon"))
            raise

    async def _publish_the_rest(self, filling: Filling) -> None:
        """What the log got before the owner wrote to both; the guard makes it harmless to who has it."""
        async with aclosing(replayed(self.connection, filling.topic, since=filling.at)) as batches:
            async for batch in batches:
                await self.mending.from_log(batch.records)
        group = group_of(self.prefix, WRITER)
        async with group_readers(
            self.connection, filling.topic, [group], patience_s=PATIENCE_S
        ) as readers:
            if not await readers.caught_up():
                raise Unavailable(
                    f"{WRITER} gets no further: is it running? `hybrid-memory status` shows it. The old "
                    "index stays in place."
                )

    async def _tell(self, step: Literal["adopt", "switch", "abandon"]) -> None:
        await self.asking.ask(
            lambda envelope: IndexReplaceAsked(**envelope.fields(), step=step, name=self.name),
            timeout_s=TIMEOUT_S,
        )


@dataclass
class OfNobody:
    """A folder beside one that no process owns."""

    index: MemoryVectors
    name: str
    directory: Path
    take_over: Callable[[Path, str], None]
    connection: KafkaConnection
    prefix: str

    async def replace(self, filling: Filling) -> None:
        await filling.catch_up()
        await self.index.close()
        await asyncio.to_thread(self.take_over, self.directory, self.name)
        # The writer need not read again what is there; it may be of a model that it knows no more.
        await skip_to(self.connection, group_of(self.prefix, WRITER), filling.at)


@dataclass
class OnAServer:
    """A collection beside the one that stands behind the alias."""

    index: MemoryVectors
    switch: Callable[[], Awaitable[None]]
    connection: KafkaConnection
    prefix: str
    writers: int
    """Processes of the vector writer that run."""

    async def replace(self, filling: Filling) -> None:
        await filling.catch_up()
        await self.switch()
        # What was written to the old one last; from here on the writers write to this one.
        await filling.catch_up()
        if not self.writers:
            await skip_to(self.connection, group_of(self.prefix, WRITER), filling.at)
