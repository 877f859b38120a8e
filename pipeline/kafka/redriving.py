"""memory.dead -> where it came from: what could not be used is tried once more, or given up.

A redriven event is the same event, with its version and id: the stores place it among the others as if it
had come late, so that redriving twice, or after newer events, overwrites nothing and brings nothing back.
Letters are settled after Kafka has acknowledged them where they went: a crash repeats, never loses.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence, Set
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from pipeline.errors import Refused
from pipeline.kafka.admin import asked
from pipeline.kafka.connection import (
    PUBLISH_PATIENCE_S,
    KafkaConnection,
    started_producer,
    stopped_producer,
)
from pipeline.kafka.dead_letters import (
    Letter,
    Place,
    Selection,
    letter_of,
    redriven_headers,
    settled_by,
    utc_now,
)
from pipeline.kafka.lag import topic_partitions, topic_ranges
from pipeline.kafka.records import Record, as_pairs, headers_of, value_of
from pipeline.kafka.replaying import Batch, replayed
from pipeline.kafka.topics import ORDERED
from schemas.events import DeadLetterDropped, DeadLetterRedriven, MemoryRedriven
from schemas.topics import DEAD, STORED

AT_ONCE = 200
"""Letters between two looks at what Kafka has acknowledged."""

COUNTED = 5_000

Outcome = Literal["redriven", "dropped"]


@dataclass(frozen=True)
class Settled:
    """What became of the selected letters."""

    settled: int
    from_elsewhere: Sequence[Letter] = ()
    """Left as they are: they do not say which topic of a stage they came from."""
    too_large: Sequence[Letter] = ()
    """Left as they are: with its new header Kafka would not take such a one."""
    cut: Sequence[Letter] = ()
    """Left as they are: what they were could not be kept whole."""


async def open_letters(
    connection: KafkaConnection, prefix: str, selection: Selection
) -> AsyncGenerator[Letter]:
    """The letters that nobody has settled yet, in the order of each partition, as they are read.

    Reads the topic twice; keeps no more in memory than the places of what is settled. Raises Unavailable.
    """
    topic = DEAD.under(prefix)
    settled: set[Place] = set()
    async with aclosing(_until_now(connection, topic)) as records:
        async for record in records:
            place = settled_by(record)
            if place is not None:
                settled.add(place)
    async with aclosing(_until_now(connection, topic)) as records:
        async for record in records:
            if settled_by(record) is not None:
                continue
            letter = letter_of(record)
            if letter.place not in settled and selection.takes(letter):
                yield letter


async def count_open(connection: KafkaConnection, prefix: str) -> int:
    """How many letters nobody has settled yet. Raises Unavailable.

    Of more than COUNTED all that Kafka still has are counted, to save reading them.
    """
    topic = DEAD.under(prefix)
    there = sum(range_.records for range_ in (await topic_ranges(connection, [topic])).values())
    if not 0 < there <= COUNTED:
        return there
    async with aclosing(open_letters(connection, prefix, Selection())) as letters:
        return len([None async for _ in letters])


async def settle(
    connection: KafkaConnection,
    prefix: str,
    selection: Selection,
    outcome: Outcome,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Settled:
    """Redrives or drops the selected letters; tells with how many it is done, as it goes.

    Then Kafka deletes the bytes in front of the first letter that is still open. Raises Unavailable; what
    was settled until then stays so.
    """
    partitions = {
        topic: len(await topic_partitions(connection, topic))
        for topic in (stage_topic.under(prefix) for stage_topic in ORDERED)
    }
    standing = _Standing(connection, DEAD.under(prefix))
    await standing.read_on()
    producer = await started_producer(connection)
    settling = _Settling(producer, prefix, outcome, partitions)
    try:
        async with aclosing(standing.letters(selection)) as letters:
            async for batch in _batches(letters):
                await settling.settle(batch)
                on_progress(settling.settled)
        # Another stage that could not use the same record has it back now, too.
        await settling.mark(standing.of_records(settling.sent) - settling.marked)
    except (KafkaError, TimeoutError) as error:
        raise connection.named(error) from error
    finally:
        await stopped_producer(producer)
    # The marks, and what has died meanwhile.
    await standing.read_on()
    # Whoever may not delete leaves it to the topic's retention.
    with suppress(Refused):
        await _delete(connection, standing.first_open())
    return Settled(settling.settled, settling.from_elsewhere, settling.too_large, settling.cut)


@dataclass
class _Standing:
    """Which letters are open, by what their records are, and how far the topic was read: no bytes of them."""

    connection: KafkaConnection
    topic: str
    open: dict[Place, bytes] = field(default_factory=dict[Place, bytes])
    at: Mapping[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])

    async def read_on(self) -> None:
        """Reads on from where it was read to. Raises Unavailable."""
        async with aclosing(_batches_since(self.connection, self.topic, self.at)) as batches:
            async for batch in batches:
                for record in batch.records:
                    self._take(record)
                self.at = batch.offsets

    def _take(self, record: Record) -> None:
        # A mark stands behind what it settles, in the same partition.
        settled = settled_by(record)
        if settled is not None:
            self.open.pop(settled, None)
        else:
            letter = letter_of(record)
            self.open[letter.place] = _record_of(letter)

    async def letters(self, selection: Selection) -> AsyncGenerator[Letter]:
        """The letters that were open, read once more."""
        async with aclosing(_until_now(self.connection, self.topic)) as records:
            async for record in records:
                if Place(record.partition, record.offset) in self.open:
                    letter = letter_of(record)
                    if selection.takes(letter):
                        yield letter

    def of_records(self, digests: Set[bytes]) -> set[Place]:
        """The open letters of these records."""
        return {place for place, digest in self.open.items() if digest in digests}

    def first_open(self) -> dict[TopicPartition, int]:
        """By partition: up to where nothing is open."""
        first = dict(self.at)
        for place in self.open:
            tp = TopicPartition(self.topic, place.partition)
            first[tp] = min(first[tp], place.offset)
        return first


async def _batches(letters: AsyncGenerator[Letter]) -> AsyncGenerator[Sequence[Letter]]:
    batch: list[Letter] = []
    async for letter in letters:
        batch.append(letter)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass
class _Settling:
    producer: AIOKafkaProducer
    prefix: str
    outcome: Outcome
    partitions: dict[str, int]
    settled: int = 0
    from_elsewhere: list[Letter] = field(default_factory=list[Letter])
    too_large: list[Letter] = field(default_factory=list[Letter])
    cut: list[Letter] = field(default_factory=list[Letter])
    sent: set[bytes] = field(default_factory=set[bytes])
    """Digests of the records that are back where they came from."""
    marked: set[Place] = field(default_factory=set[Place])

    async def settle(self, letters: Sequence[Letter]) -> None:
        async with asyncio.timeout(PUBLISH_PATIENCE_S):
            if self.outcome == "redriven":
                letters = [letter for letter in letters if await self._is_back(letter)]
            # Only now: a letter that is settled is nobody's any more.
            await self.mark([letter.place for letter in letters])
        self.settled += len(letters)

    async def mark(self, places: Collection[Place]) -> None:
        """Says in the topic what became of these letters."""
        await asyncio.gather(*[await self._mark(place) for place in places])
        self.marked.update(places)

    async def _is_back(self, letter: Letter) -> bool:
        """Sends the letter's record back, once for all stages that could not use it."""
        if letter.topic not in self.partitions:
            self.from_elsewhere.append(letter)
            return False
        if not letter.is_whole:
            self.cut.append(letter)
            return False
        if _record_of(letter) in self.sent:
            return True
        try:
            await asyncio.gather(*await self._redrive(letter))
        except MessageSizeTooLargeError:
            self.too_large.append(letter)
            return False
        self.sent.add(_record_of(letter))
        return True

    async def _redrive(self, letter: Letter) -> list[asyncio.Future[Any]]:
        record, sent = letter.record, list[asyncio.Future[Any]]()
        if letter.event_id is not None:
            # Before the event itself: whoever waits for it waits again, and hears of it then.
            news = MemoryRedriven(event_id=letter.event_id, at=utc_now())
            topic, headers = STORED.under(self.prefix), as_pairs(headers_of(news))
            sent.append(await self._send(topic, value_of(news), record.key, None, headers))
        within = letter.partition is not None and letter.partition < self.partitions[letter.topic]
        partition = letter.partition if within else None
        headers = redriven_headers(letter)
        return [*sent, await self._send(letter.topic, record.value, record.key, partition, headers)]

    async def _mark(self, place: Place) -> asyncio.Future[Any]:
        kind = DeadLetterRedriven if self.outcome == "redriven" else DeadLetterDropped
        mark = kind(offset=place.offset, at=utc_now())
        topic, headers = DEAD.under(self.prefix), as_pairs(headers_of(mark))
        return await self._send(topic, value_of(mark), None, place.partition, headers)

    async def _send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: Any,
    ) -> asyncio.Future[Any]:
        producer: Any = self.producer
        return await producer.send(topic, value, key=key, partition=partition, headers=headers)


def _record_of(letter: Letter) -> bytes:
    """Tells the record of a letter from any other: an origin alone may be unknown, or used again."""
    record = letter.record
    return blake2b(
        repr((letter.origin, record.key, record.value)).encode(), digest_size=16
    ).digest()


async def _delete(connection: KafkaConnection, before: Mapping[TopicPartition, int]) -> None:
    """Lets Kafka delete what stands before these offsets, marks included."""
    if not before:
        return
    async with asked(connection) as admin:
        await admin.delete_records(
            {tp: RecordsToDelete(before_offset=offset) for tp, offset in before.items()}
        )


async def _until_now(connection: KafkaConnection, topic: str) -> AsyncGenerator[Record]:
    """The topic from its beginning to where it ends now; nothing where there is no topic."""
    async with aclosing(_batches_since(connection, topic, {})) as batches:
        async for batch in batches:
            for record in batch.records:
                yield record


async def _batches_since(
    connection: KafkaConnection, topic: str, since: Mapping[TopicPartition, int]
) -> AsyncGenerator[Batch]:
    if not await topic_partitions(connection, topic):
        return
    async with aclosing(replayed(connection, topic, since=since)) as batches:
        async for batch in batches:
            yield batch


def place_of(written: str) -> Place:
    """ "2/17" as `dead list` prints it. Raises Refused."""
    partition, _, offset = written.partition("/")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise Refused(
            f"A dead letter is named as `dead list` prints it, 2/17 say; not {written!r}."
        )
    return Place(int(partition), int(offset))
