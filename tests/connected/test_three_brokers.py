"""Kafka on three nodes: one of them may be killed, and what was acknowledged is there."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from pipeline.embedded import Plan, Stack, discover
from pipeline.kafka.admin import asked
from pipeline.kafka.connection import KafkaConnection, started_producer
from pipeline.kafka.topics import ensure_topics
from schemas.topics import EVENTS, TOPICS
from tests.conftest import running

pytestmark = pytest.mark.connected

RECORDS = 3_000
TOPIC = EVENTS.under("memory")


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    monkeypatch.setenv("HYBRID_MEMORY_HOME", str(tmp_path))
    plan = Plan(tmp_path / "data", postgres_dsn="there", redis_url="there", brokers=3)
    async with running(plan) as stack:
        yield stack


async def test_topics_have_three_copies_even_if_a_broker_was_away_when_they_were_made(
    cluster: Stack,
) -> None:
    kafka = KafkaConnection(cluster.kafka_bootstrap_servers)
    kill(cluster.data, "kafka-3")
    await asyncio.sleep(3)  # until the others take it for dead
    await ensure_topics(kafka, "early", partitions=3, replication_factor=1)
    assert await copies(kafka, EVENTS.under("early")) == {3}


async def test_topics_that_are_made_are_known_to_every_broker(cluster: Stack) -> None:
    kafka = KafkaConnection(cluster.kafka_bootstrap_servers)
    for prefix in [f"made-{number}" for number in range(8)]:  # a third is told late, by itself
        await ensure_topics(kafka, prefix, partitions=3, replication_factor=1)
        names = {topic.under(prefix) for topic in TOPICS}
        async with asked(kafka) as admin:
            answers = await admin.known_everywhere(names)
        assert [{about["topic"] for about in topics} for topics in answers] == [names] * 3


async def test_a_broker_that_is_killed_takes_nothing_with_it(cluster: Stack) -> None:
    kafka = KafkaConnection(cluster.kafka_bootstrap_servers)
    await ensure_topics(kafka, "memory", partitions=3, replication_factor=1)
    assert await copies(kafka, TOPIC) == {3}
    producer: Any = await started_producer(kafka)
    try:
        sent: list[asyncio.Future[Any]] = []
        for number in range(RECORDS):
            sent.append(await producer.send(TOPIC, str(number).encode()))
            if number == RECORDS // 3:
                kill(cluster.data, "kafka-2")
        assert not all(one.done() for one in sent), "the kill came too late to hit anything"
        await asyncio.wait_for(asyncio.gather(*sent), 60)
    finally:
        await producer.stop()
    assert await read(kafka) == sorted(range(RECORDS))


def kill(data: Path, part: str) -> None:
    stack = discover(data)
    assert stack is not None
    pid = stack.parts[part].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def copies(kafka: KafkaConnection, topic: str) -> set[int]:
    async with asked(kafka) as admin:
        (about,) = await admin.describe_topics([topic])
    return {len(partition["replicas"]) for partition in about["partitions"]}


async def read(kafka: KafkaConnection) -> list[int]:
    """Every record that is there, however often."""
    consumer: Any = AIOKafkaConsumer(TOPIC, auto_offset_reset="earliest", **kafka.options())
    await consumer.start()
    found: list[int] = []
    try:
        while polled := await consumer.getmany(timeout_ms=4_000):
            found += [int(record.value) for records in polled.values() for record in records]
    finally:
        await consumer.stop()
    return sorted(found)
