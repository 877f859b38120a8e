"""A producer that nobody waits for any more is not left half open."""

import asyncio
from typing import Any

import pytest

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
