"""A fresh index is filled: from the log or from the record, then with what the log got meanwhile.

The rules of the ordinary writer hold, for it is the index's own `write` that is used. But compaction keeps
the last record of a key, which need not be its greatest version: after a late event the log may no longer
tell of a revision or a forgetting. The record can, so what the log has made is compared with it, before
anybody searches there. Vectors of another model are not taken over: their memories are embedded anew.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from pipeline.domain.identity import memory_key
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.reading import enriched_of
from pipeline.kafka.replaying import replayed
from pipeline.ports import Fingerprint, MemoryRecords, MemoryVectors
from pipeline.verifying.comparing import Difference, differences, windows
from pipeline.verifying.repairing import can_mend
from pipeline.verifying.verifying import Progress
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
    mended: int = 0
    """States that the log did not tell of, taken from the record."""

    async def from_forgettings(self, records: MemoryRecords) -> None:
        """What was forgotten and remembered anew, before all else. Raises Unavailable.

        Neither the record's states nor a compacted log tell of it; a memory's life of before may still come.
        """
        after = None
        while page := await records.remembered_anew(after, STATES):
            after = memory_key(page[-1].user_id, page[-1].memory_id)
            await self.fresh.write(page)

    async def from_log(self, on_progress: Progress) -> None:
        """All that the log holds, or has got since it was read last. Raises Unavailable."""
        async with aclosing(replayed(self.connection, self.topic, since=self.at)) as batches:
            async for batch in batches:
                events = [event for each in batch.records if (event := enriched_of(each))]
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
            await self._write(await self._enriched(events))
            on_progress(after.int / 2**128, self.written)

    async def agree(self, records: MemoryRecords, on_progress: Progress) -> None:
        """Leaves nothing to be found that the record knows to be forgotten, or in an older state.

        What the record lacks, or holds an older state of, is left as it is: the log has told of it.
        Raises Unavailable, and Refused where something older would be found all the same.
        """
        await self.catch_up()
        compared, behind = 0, list[Difference]()
        async with aclosing(windows(records, self.fresh)) as all_:
            async for window in all_:
                behind += filter(can_mend, differences(window.record, window.index))
                compared += len(window.record)
                on_progress(window.last.int / 2**128, compared)
                while len(behind) >= STATES:
                    await self._mend(records, behind[:STATES])
                    del behind[:STATES]
        await self._mend(records, behind)
        on_progress(1.0, compared)

    async def _mend(self, records: MemoryRecords, behind: Sequence[Difference]) -> None:
        told = [each.record for each in behind if each.record is not None]
        if not told:
            return
        # The record reads the same log: what was only on its way to both is in the fresh index now.
        await self.from_log(_unseen)
        lacking = [each.key for each in await self._behind(told)]
        await self._write(await self._enriched(await records.publishable(lacking)))
        self.mended += len(lacking)
        if shown := [each for each in await self._behind(told) if _shows_older(each)]:
            raise Refused(
                f"The fresh index does not take the newest state of {len(shown)} memories, and would show "
                "an older one: it is not used, the old index stays. Revise or forget them, or "
                f"`rebuild --from record`, which leaves them out. The first has the key {shown[0].key}."
            )

    async def _behind(self, told: Sequence[Fingerprint]) -> Sequence[Difference]:
        there = await self.fresh.fingerprints_of([each.key for each in told])
        return [each for each in differences(told, there) if can_mend(each)]

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
        try:
            await self.fresh.write(await self._of_our_model(events))
        except Unusable:
            await self._one_by_one(events)
        self.written += len(events)

    async def _one_by_one(self, events: Sequence[Enriched]) -> None:
        for event in events:
            try:
                await self.fresh.write(await self._of_our_model([event]))
            except Unusable:
                self.unusable += 1

    async def _enriched(self, events: Sequence[Published]) -> Sequence[Enriched]:
        """The same with what they are about, and their vectors; without those that have none."""
        try:
            return await self.embed(await self.understand(events))
        except Unusable:
            if len(events) == 1:
                self.unusable += 1
                return []
        middle = len(events) // 2
        halves = [await self._enriched(half) for half in (events[:middle], events[middle:])]
        return [event for half in halves for event in half]

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


def _shows_older(found: Difference) -> bool:
    """Whether a search would find a state that the record knows to be replaced."""
    record, index = found.record, found.index
    if record is None or index is None or index.known.forgotten:
        return False
    return record.known.forgotten or index.known.stamp < record.known.stamp


def _unseen(fraction: float, seen: int) -> None:
    """Catching up is short: nobody watches."""
