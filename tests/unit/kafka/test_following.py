"""Whoever leaves while Kafka is away leaves, and takes no error along."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from pipeline.kafka import following
from pipeline.kafka.following import stopped_consumer


class Consumer:
    """Stops as it is told to."""

    def __init__(self, stop: Callable[[], Awaitable[None]]) -> None:
        self.stop: Any = stop


async def let_out_a_cancellation() -> None:
    raise asyncio.CancelledError


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise KafkaConnectionError


@pytest.mark.parametrize("stop", [let_out_a_cancellation, wait_for_ever, fail])
async def test_stopping_ends_without_an_error(
    stop: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STOP_PATIENCE_S", 0.01)
    consumer: Any = Consumer(stop)
    await asyncio.wait_for(stopped_consumer(consumer), 5)
    await asyncio.sleep(0)


async def test_a_bug_is_not_kept_secret() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    consumer: Any = Consumer(broken)
    with pytest.raises(ZeroDivisionError):
        await stopped_consumer(consumer)
