"""A reader that Kafka does not let go is given up, and what went wrong is told."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from pipeline.errors import Unavailable
from pipeline.kafka import admin, following, lag, readers, replaying
from pipeline.kafka.connection import KafkaConnection

KAFKA = KafkaConnection("nowhere:1")
TP = TopicPartition("memory.events", 0)


class Consumer:
    """Does not get to Kafka, and cannot stop either."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def start(self) -> None:
        raise KafkaConnectionError

    async def stop(self) -> None:
        await asyncio.Event().wait()


class Admin:
    def __init__(self, **_: Any) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


async def partitions(*_: Any) -> list[TopicPartition]:
    return [TP]


async def partitions_by_topic(*_: Any) -> dict[str, list[TopicPartition]]:
    return {TP.topic: [TP]}


async def look() -> None:
    await lag.topic_ranges(KAFKA, [TP.topic])


async def replay() -> None:
    async with aclosing(replaying.replayed(KAFKA, TP.topic)) as batches:
        await anext(batches)


async def wait_for_readers() -> None:
    async with readers.group_readers(KAFKA, TP.topic, ["g"], patience_s=1):
        pass


async def ask_where_a_group_is() -> None:
    await readers.read_so_far(KAFKA, TP.topic, "g")


@pytest.mark.parametrize("read", [look, replay, wait_for_readers, ask_where_a_group_is])
async def test_whoever_reads_does_not_wait_for_ever(
    read: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STOP_PATIENCE_S", 0.01)
    monkeypatch.setattr(lag, "_partitions", partitions_by_topic)
    monkeypatch.setattr(admin, "Admin", Admin)
    for module in (readers, replaying):
        monkeypatch.setattr(module, "topic_partitions", partitions)
    for module in (lag, readers, replaying):
        monkeypatch.setattr(module, "AIOKafkaConsumer", Consumer)
    with pytest.raises(Unavailable):
        async with asyncio.timeout(2):
            await read()
    # Whoever was given up ends in its own time.
    await asyncio.sleep(0)
