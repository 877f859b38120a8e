"""Differences in, events out: what the record or the log holds is published again, and the stages do the rest.

Nothing is written past the stages, so all their rules hold: the greatest version wins, what is forgotten
stays so, and a newer state that comes meanwhile is not undone. The same event id and version make it the
same event: whoever has done with it does nothing.

- What the log holds and the record lacks goes into memory.enriched again, byte for byte.
- What the record holds and the index lacks goes into memory.events, to be embedded anew.
- Where memories stand by their use is told once more by who sees that the index has an older word. Where it
  has a newer one, that of a memory before this one, or of a life that the record lost, the record's own
  life is made newer: by a word that says nothing else.
- What only the index holds, newer than record and log, is left alone: nothing accepted can prove it, and
  the index would refuse anything older in its place. `rebuild` makes the index anew without it.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid5

from pipeline.domain.clock import moment_of
from pipeline.domain.identity import memory_key
from pipeline.errors import Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import topic_partitions
from pipeline.kafka.publishing import Outgoing, Publishing, packed, publishing
from pipeline.kafka.readers import group_readers
from pipeline.kafka.reading import enriched_of
from pipeline.kafka.records import Record, group_of, legible
from pipeline.ports import MemoryRecords
from pipeline.verifying.comparing import Difference
from schemas.events import MemoryCaptured, MemoryConsolidated, Published, UserForgotten
from schemas.topics import CLASSIFIED, ENRICHED, EVENTS, RECALLED, Topic

WRITERS = ("record_writer", "vector_writer")
HOPS: Mapping[Topic, Sequence[str]] = {
    EVENTS: ("classifier",),
    CLASSIFIED: ("embedder",),
    ENRICHED: WRITERS,
}
"""Who must have read each topic before an event is in both stores, in the order of the stream."""


@dataclass
class Mending:
    """Publishes again what a store lacks."""

    records: MemoryRecords
    publishing: Publishing
    connection: KafkaConnection
    prefix: str
    partitions: int
    published: int = 0
    """Events that were published again."""
    behind: int = 0
    """Memories that do not stand in the index where the record says, to be told of."""
    left_alone: int = 0
    """Differences that nothing accepted can mend."""

    async def from_log(self, lost: Sequence[Record]) -> None:
        """Appends the records to their own partitions once more. Raises Unavailable.

        But what the stages set aside: under a new time a clock that is days ahead might look right.
        """
        whole = [record for record in lost if enriched_of(record) is not None]
        await self.publishing.send(
            [
                Outgoing(
                    ENRICHED, record.value, record.key, legible(record.headers), record.partition
                )
                for record in whole
            ]
        )
        self.published += len(whole)

    async def from_record(self, found: Sequence[Difference]) -> None:
        """Publishes the record's states where the index has nothing newer. Raises Unavailable."""
        mendable = [each.key for each in found if can_mend(each) and each.lives is None]
        astray = [each for each in found if can_mend(each) and each.lives is not None]
        self.behind += len(astray)
        self.left_alone += len(found) - len(mendable) - len(astray)
        await self._outlive({each.key: each.lives for each in astray if each.lives})
        events = await self.records.publishable(mendable)
        await self.publishing.send(
            [
                packed(EVENTS, copy, partition)
                for event in events
                for copy, partition in copies(event, self.partitions)
            ]
        )
        self.published += len(events)

    async def _outlive(self, lives: Mapping[UUID, tuple[int, int]]) -> None:
        """Has the record's lives begin anew above those that the index holds, where these are greater."""
        ahead = {key: index for key, (record, index) in lives.items() if index > record}
        events = await self.records.publishable(list(ahead))
        words = [
            outliving(event, ahead[memory_key(event.user_id, event.memory_id)])
            for event in events
            if isinstance(event, MemoryCaptured)
        ]
        await self.publishing.publish(RECALLED, words)

    async def done(self, *, patience_s: float) -> None:
        """Returns when the stages have done with all that was published so far.

        Raises Unavailable where one of them gets no further in `patience_s`.
        """
        for topic, stages in HOPS.items():
            groups = [group_of(self.prefix, stage) for stage in stages]
            name = topic.under(self.prefix)
            async with group_readers(
                self.connection, name, groups, patience_s=patience_s
            ) as readers:
                if not await readers.caught_up():
                    raise Unavailable(
                        f"{' or '.join(stages)} gets no further with {name}: is it running? "
                        "`hybrid-memory status` shows it. What was published again is not lost."
                    )


def can_mend(found: Difference) -> bool:
    """Whether publishing the record's state again would make the index agree."""
    if found.record is None:
        return False
    if found.lives is not None:
        return found.lives[0] != found.lives[1]
    return found.index is None or found.index.known.stamp <= found.record.known.stamp


def outliving(event: MemoryCaptured, life: int) -> MemoryConsolidated:
    """A word after which the record's life of the memory is newer than `life`; the same word each time.

    It changes nothing else: no memory stands for itself.
    """
    return MemoryConsolidated(
        event_id=uuid5(event.event_id, str(life)),
        user_id=event.user_id,
        memory_id=event.memory_id,
        version=life + 1,
        published_at=moment_of(life + 1),
        parted=(event.memory_id,),
    )


def copies(event: Published, partitions: int) -> Sequence[tuple[Published, int | None]]:
    """The event, and the partition it goes to; a user's forgetting goes to each."""
    if not isinstance(event, UserForgotten):
        return [(event, None)]
    return [
        (event.model_copy(update={"partition": number, "partitions": partitions}), number)
        for number in range(partitions)
    ]


@asynccontextmanager
async def mending(
    connection: KafkaConnection, prefix: str, records: MemoryRecords
) -> AsyncGenerator[Mending]:
    """Ready to publish. Raises Unavailable."""
    async with publishing(connection, prefix) as to_kafka:
        partitions = len(await topic_partitions(connection, EVENTS.under(prefix)))
        yield Mending(records, to_kafka, connection, prefix, partitions)
