"""Reading a topic as it goes by: from now on, or from its beginning, by one reader alone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, KafkaError

from pipeline.errors import Refused
from pipeline.kafka.connection import STOP_PATIENCE_S, KafkaConnection
from pipeline.kafka.records import Record

log = structlog.get_logger(__name__)


@asynccontextmanager
async def following(
    connection: KafkaConnection,
    topic: str,
    *,
    group_id: str | None = None,
    from_beginning: bool = False,
) -> AsyncGenerator[AIOKafkaConsumer]:
    """A consumer placed at the end of every partition, or at the beginning.

    With a group the place is kept between readers, and `from_beginning` says where a new group starts.
    Raises Unavailable, and Refused where the topic is not there.
    """
    consumer = AIOKafkaConsumer(
        **connection.options(),
        group_id=group_id,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest" if from_beginning else "latest",
    )
    consumer.subscribe([topic])
    try:
        await consumer.start()
        if not consumer.partitions_for_topic(topic):
            raise Refused(
                f"Topic {topic} is not there. Any stage makes the topics: `hybrid-memory up`, or "
                "`hybrid-memory run classifier`."
            )
        if group_id is None:
            await _place(consumer, from_beginning=from_beginning)
        yield consumer
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await stopped_consumer(consumer)


async def stopped_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stops, and gives up after a while.

    With Kafka away, aiokafka 0.14 waits for requests that nobody answers, and lets out the cancellation
    of a task of its own, which would pass for ours.
    """
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait([stopping], timeout=STOP_PATIENCE_S)
    if not stopping.done() or stopping.cancelled():
        stopping.cancel()
        return
    with suppress(KafkaError, OSError):
        stopping.result()


async def _place(consumer: AIOKafkaConsumer, *, from_beginning: bool) -> None:
    assigned = sorted(consumer.assignment())
    if from_beginning:
        await consumer.seek_to_beginning(*assigned)
    else:
        await consumer.seek_to_end(*assigned)
    # The place is known only when it has been asked for.
    await asyncio.gather(*(consumer.position(tp) for tp in assigned))


async def rewind(consumer: AIOKafkaConsumer, *, since_ms: int) -> None:
    """Goes back to the first record of each partition that is not older than `since_ms`."""
    moments = dict.fromkeys(consumer.assignment(), max(0, since_ms))
    for tp, found in (await consumer.offsets_for_times(moments)).items():
        if found is not None and found.offset < await consumer.position(tp):
            consumer.seek(tp, found.offset)


async def records(consumer: AIOKafkaConsumer, *, commit: bool) -> AsyncGenerator[Record]:
    """The records as they come; with `commit`, a batch counts as read once its reader asks for more."""
    while True:
        batches: dict[Any, Any] = await consumer.getmany(timeout_ms=500, max_records=500)
        for batch in batches.values():
            for record in batch:
                yield record
        if commit and batches:
            await _commit(consumer)


async def _commit(consumer: AIOKafkaConsumer) -> None:
    try:
        await consumer.commit()
    except CommitFailedError as error:
        # Another reader of the group has the partition now, and reads the batch again.
        log.warning("not committed, the group has moved on", reason=str(error))
