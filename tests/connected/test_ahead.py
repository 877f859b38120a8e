"""A publisher whose clock is wrong makes no memory that nobody can revise."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka.errors import InvalidTimestampError

from pipeline.kafka.connection import KafkaConnection, started_producer, stopped_producer
from pipeline.kafka.records import value_of
from schemas.events import MAX_VERSION
from schemas.topics import CLASSIFIED, DEAD, EVENTS
from tests.builders import captured
from tests.connected.test_delivery import World, serving, stage, world

__all__ = ["world"]

pytestmark = pytest.mark.connected


async def test_a_version_of_another_century_is_set_aside(world: World) -> None:
    events = [captured("before"), captured("of 2255", version=MAX_VERSION), captured("after")]
    await world.publish(*events, partition=0)
    async with serving(world.kafka, world.prefix, stage()):
        assert await world.texts(CLASSIFIED, 2) == ["before", "after"]
        (dead,) = await world.arrived(DEAD, 1)
    assert b"days ahead of its record" in dict(dead.headers)["dead-reason"]


async def test_kafka_takes_no_record_from_such_a_clock(kafka: KafkaConnection, prefix: str) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    producer: Any = await started_producer(kafka)
    try:
        with pytest.raises(InvalidTimestampError):
            await producer.send_and_wait(
                EVENTS.under(prefix),
                value_of(captured()),
                timestamp_ms=int(tomorrow.timestamp() * 1_000),
            )
    finally:
        await stopped_producer(producer)
