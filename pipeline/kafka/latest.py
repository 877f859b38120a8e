"""The newest records of a topic, without waiting for more."""

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import topic_partitions
from pipeline.kafka.records import Record


async def latest(connection: KafkaConnection, topic: str, most: int) -> list[Record]:
    """The `most` newest records over all partitions, oldest first; none where there is no topic.

    Raises Unavailable.
    """
    partitions = await topic_partitions(connection, topic)
    if not partitions:
        return []
    consumer = AIOKafkaConsumer(topic, **connection.options())
    try:
        await consumer.start()
        found = await _tails(consumer, partitions, most)
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await consumer.stop()
    return sorted(found, key=lambda record: record.timestamp)[-most:]


async def _tails(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], most: int
) -> list[Record]:
    beginning = await consumer.beginning_offsets(partitions)
    end = await consumer.end_offsets(partitions)
    for tp in partitions:
        consumer.seek(tp, max(beginning[tp], end[tp] - most))
    found: list[Record] = []
    unread = {tp for tp in partitions if end[tp] > beginning[tp]}
    while unread:
        batches = await consumer.getmany(*unread, timeout_ms=500)
        for tp, batch in batches.items():
            found += [record for record in batch if record.offset < end[tp]]
        # The position, not the records: the last offset may be a transaction's marker.
        unread = {tp for tp in unread if await consumer.position(tp) < end[tp]}
    return found
