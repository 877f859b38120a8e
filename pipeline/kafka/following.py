"""Reading a topic as it goes by: from now on, or from its beginning, by one reader alone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from pipeline.errors import Refused
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.records import Record


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
        auto_offset_reset="earliest" if from_beginning else "latest",
    )
    consumer.subscribe([topic])
    try:
        await consumer.start()
        if not consumer.partitions_for_topic(topic):
            raise Refused(f"Topic {topic} is not there. `hybrid-memory up` or a stage makes it.")
        if group_id is None:
            await _place(consumer, from_beginning=from_beginning)
        yield consumer
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await consumer.stop()


async def _place(consumer: AIOKafkaConsumer, *, from_beginning: bool) -> None:
    assigned = sorted(consumer.assignment())
    if from_beginning:
        await consumer.seek_to_beginning(*assigned)
    else:
        await consumer.seek_to_end(*assigned)
    # The place is known only when it has been asked for.
    await asyncio.gather(*(consumer.position(tp) for tp in assigned))


async def records(consumer: AIOKafkaConsumer, *, commit: bool) -> AsyncGenerator[Record]:
    """The records as they come; with `commit`, a batch counts as read once its reader asks for more."""
    while True:
        batches: dict[Any, Any] = await consumer.getmany(timeout_ms=500, max_records=500)
        for batch in batches.values():
            for record in batch:
                yield record
        if commit and batches:
            await consumer.commit()
