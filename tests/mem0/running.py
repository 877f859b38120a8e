"""The poller in this process against the stand-in and a real Kafka, and what readers see of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer

from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import stopped_consumer
from pipeline.kafka.lag import topic_partitions
from pipeline.sources.mem0 import Rules
from pipeline.sources.mem0_api import Mem0Api, opened
from producers.mem0_poller import poll
from schemas.events import PUBLISHED, Published
from schemas.topics import EVENTS

RULES = Rules(lag_s=0.0, sweep_interval_s=3_600.0, batch=50)


@asynccontextmanager
async def polling(
    kafka: KafkaConnection,
    prefix: str,
    address: str,
    *,
    interval_s: float = 0.1,
    rules: Rules = RULES,
    key: str = "a-key",
    **more: Any,
) -> AsyncGenerator["asyncio.Task[None]"]:
    """The poller for the time of the block; its task, which ends early where it cannot go on."""
    until = asyncio.Event()

    @asynccontextmanager
    async def opening() -> AsyncGenerator[Mem0Api]:
        from pathlib import Path

        async with opened(key, address, Path("unused")) as api:
            api.hurry()
            yield api

    task = asyncio.create_task(
        poll(opening, kafka, prefix, interval_s=interval_s, rules=rules, until=until, **more)
    )
    try:
        yield task
    finally:
        until.set()
        await asyncio.wait([task])


async def committed(kafka: KafkaConnection, prefix: str, topic: Any = EVENTS) -> list[Published]:
    """All events that readers of what was committed see now."""
    partitions = await topic_partitions(kafka, topic.under(prefix))
    consumer = AIOKafkaConsumer(
        **kafka.options(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Published] = []
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            batches: Any = await consumer.getmany(timeout_ms=100)
            found += [PUBLISHED.validate_json(r.value) for b in batches.values() for r in b]
        return found
    finally:
        await stopped_consumer(consumer)


async def until(holds: Callable[[], Any], *, timeout_s: float = 30.0) -> None:
    """Waits until it holds; `holds` may be asynchronous."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = holds()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.1)


async def spoken(address: str) -> httpx.AsyncClient:
    """Plain HTTP to the stand-in."""
    return httpx.AsyncClient(base_url=address, headers={"Authorization": "Token k"})
