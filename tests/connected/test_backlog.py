"""A publisher does not run away from the stages, on Apache Kafka."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.errors import Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.records import group_of
from producers import backlog
from producers.client import MemoryClient
from schemas.topics import EVENTS

pytestmark = pytest.mark.connected


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "LOOK_EVERY_S", 0.05)


async def publish(memory: MemoryClient, count: int) -> None:
    await memory.remember_many([{"text": f"text {n}", "user_id": "alice"} for n in range(count)])
    await asyncio.sleep(0.1)


async def catch_up(kafka: KafkaConnection, prefix: str) -> None:
    """What the classifier would have read is read."""
    options: dict[str, Any] = kafka.options()
    consumer = AIOKafkaConsumer(
        **options, group_id=group_of(prefix, "classifier"), enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(EVENTS.under(prefix), number) for number in range(2)]
        consumer.assign(partitions)
        await consumer.commit(await consumer.end_offsets(partitions))
    finally:
        await consumer.stop()


async def test_who_would_rather_not_wait_is_refused(kafka: KafkaConnection, prefix: str) -> None:
    async with MemoryClient(kafka, prefix=prefix, most_behind=5, when_behind="refuse") as memory:
        await publish(memory, 5)
        with pytest.raises(Unavailable, match="5 events behind, and at most 5"):
            await publish(memory, 1)
        await catch_up(kafka, prefix)
        await publish(memory, 1)


async def test_who_waits_goes_on_once_the_stages_have_caught_up(
    kafka: KafkaConnection, prefix: str
) -> None:
    async with MemoryClient(kafka, prefix=prefix, most_behind=5) as memory:
        await publish(memory, 5)
        waiting = asyncio.create_task(publish(memory, 1))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await catch_up(kafka, prefix)
        await asyncio.wait_for(waiting, 10)


async def test_without_a_limit_nobody_is_asked(
    kafka: KafkaConnection, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(backlog, "group_states")
    async with MemoryClient(kafka, prefix=prefix) as memory:
        await publish(memory, 2_000)
        await publish(memory, 1)
