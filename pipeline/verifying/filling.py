"""A fresh index is filled: from the log or from the record, then with what the log got meanwhile.

The rules of the ordinary writer hold, for it is the index's own `write` that is used: compaction keeps
the last record of a key, which need not be its greatest version. Vectors of another model are not taken
over: their memories are embedded anew.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from pipeline.errors import Unavailable, Unusable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.records import Record
from pipeline.kafka.replaying import replayed
from pipeline.ports import MemoryRecords, MemoryVectors
from pipeline.verifying.verifying import Progress
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import Classified, Enriched, MemoryClassified, MemoryEnriched, Published

SMALL_LAG = 500
"""Records that the fresh index may lack when the switch begins."""
ROUNDS = 50
"""How often it is tried to get so near."""
STATES = 256
"""Of the record, embedded at once."""

Understand = Callable[[Sequence[Published]], Awaitable[Sequence[Classified]]]
Embed = Callable[[Sequence[Classified]], Awaitable[Sequence[Enriched]]]


@dataclass
class Filling:
    """Writes into a fresh index, and knows how far it has read the log."""

    fresh: MemoryVectors
    model: str
    connection: KafkaConnection
    topic: str
    understand: Understand
    embed: Embed
    at: Mapping[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    """Where the log is read on."""
    written: int = 0
    unusable: int = 0
    """Records that the vector writer would have set aside."""

    async def from_log(self, on_progress: Progress) -> None:
        """All that the log holds, or has got since it was read last. Raises Unavailable."""
        async for batch in replayed(self.connection, self.topic, since=self.at):
            events = [event for each in batch.records if (event := _event(each)) is not None]
            await self._write(events)
            self.unusable += len(batch.records) - len(events)
            self.at = batch.offsets
            on_progress(batch.fraction, self.written)

    async def from_record(self, records: MemoryRecords, on_progress: Progress) -> None:
        """All that the record holds, embedded anew. `at` must be where its writer was before.

        Raises Unavailable.
        """
        after = None
        while page := await records.page(after, STATES):
            after = page[-1].key
            events = await records.publishable([told.key for told in page])
            await self._write(await self.embed(await self.understand(events)))
            on_progress(after.int / 2**128, self.written)

    async def catch_up(self) -> None:
        """Returns once the log holds little that the fresh index has not. Raises Unavailable."""
        for _ in range(ROUNDS):
            before = self.written
            await self.from_log(_unseen)
            if self.written - before <= SMALL_LAG:
                return
        raise Unavailable(
            "The log grows faster than the fresh index: rebuild again when less is written."
        )

    async def _write(self, events: Sequence[Enriched]) -> None:
        if not events:
            return
        fitting = await self._of_our_model(events)
        try:
            await self.fresh.write(fitting)
        except Unusable:
            await self._one_by_one(fitting)
        self.written += len(events)

    async def _one_by_one(self, events: Sequence[Enriched]) -> None:
        for event in events:
            try:
                await self.fresh.write([event])
            except Unusable:
                self.unusable += 1

    async def _of_our_model(self, events: Sequence[Enriched]) -> Sequence[Enriched]:
        others = [e for e in events if isinstance(e, MemoryEnriched) and e.model != self.model]
        if not others:
            return events
        anew = iter(await self.embed([classified(event) for event in others]))
        return [
            next(anew) if isinstance(e, MemoryEnriched) and e.model != self.model else e
            for e in events
        ]


def classified(event: MemoryEnriched) -> MemoryClassified:
    """The event as it was before it was embedded."""
    names = set(MemoryClassified.model_fields) - {"type"}
    return MemoryClassified.model_construct(**{name: getattr(event, name) for name in names})


def _event(record: Record) -> Enriched | None:
    try:
        return ENRICHED_EVENTS.validate_json(record.value or b"")
    except ValueError:
        return None


def _unseen(fraction: float, seen: int) -> None:
    """Catching up is short: nobody watches."""
