"""A producer is started, or nothing of it is left and one error says why."""

import asyncio
from typing import Any

import pytest

from pipeline.errors import Unavailable
from pipeline.kafka import connection
from pipeline.kafka.connection import KafkaConnection, started_producer


async def test_a_producer_whose_start_is_given_up_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped: list[str] = []

    class Producer:
        def __init__(self, **_: Any) -> None: ...

        async def start(self) -> None:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            stopped.append("stopped")

    monkeypatch.setattr(connection, "AIOKafkaProducer", Producer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await started_producer(KafkaConnection("nowhere:1"))
    assert stopped == ["stopped"]


async def test_a_wrong_address_is_told_once() -> None:
    with pytest.raises(Unavailable, match="Kafka at localhost:9 does not answer") as told:
        await started_producer(KafkaConnection("localhost:9"))
    assert told.value.__suppress_context__
    assert told.value.__cause__ is None
