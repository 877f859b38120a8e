"""A topic from its beginning, or from given offsets, up to where it ended when the reading began."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.errors import Refused
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import stopped_consumer
from pipeline.kafka.lag import topic_partitions
from pipeline.kafka.records import Record

BATCH = 500


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records, and how far the reading is."""

    records: Sequence[Record]
    fraction: float
    """Of the offsets that there were, 0 to 1."""
    offsets: Mapping[TopicPartition, int]
    """Where each partition is read on after this batch."""


async def replayed(
    connection: KafkaConnection, topic: str, *, since: Mapping[TopicPartition, int] | None = None
) -> AsyncGenerator[Batch]:
    """All records between `since`, or the beginning, and the end, each partition in its order.

    The last batch tells the end's offsets; there is always one. Raises Unavailable, and Refused where
    the topic is not there.
    """
    partitions = await topic_partitions(connection, topic)
    if not partitions:
        raise Refused(f"Topic {topic} is not there. `hybrid-memory up` or a stage makes it.")
    consumer = AIOKafkaConsumer(
        **connection.options(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    try:
        await consumer.start()
        consumer.assign(partitions)
        async with aclosing(_batches(consumer, partitions, since or {})) as batches:
            async for batch in batches:
                yield batch
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await stopped_consumer(consumer)


async def _batches(
    consumer: AIOKafkaConsumer,
    partitions: Sequence[TopicPartition],
    since: Mapping[TopicPartition, int],
) -> AsyncGenerator[Batch]:
    end: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    beginning: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
    begin = {tp: min(end[tp], max(beginning[tp], since.get(tp, 0))) for tp in partitions}
    for tp, offset in begin.items():
        consumer.seek(tp, offset)
    at, total = dict(begin), sum(end.values()) - sum(begin.values())
    while unread := [tp for tp in partitions if at[tp] < end[tp]]:
        fetched = await consumer.getmany(*unread, timeout_ms=500, max_records=BATCH)
        records = [r for tp, batch in fetched.items() for r in batch if r.offset < end[tp]]
        # The position, not the records: the last offset may be a transaction's marker.
        at |= {tp: min(end[tp], await consumer.position(tp)) for tp in unread}
        yield Batch(records, 1 - (sum(end.values()) - sum(at.values())) / total, dict(at))
    if not total:
        yield Batch((), 1.0, at)
