"""Whoever fails in the middle of the log closes its reader at once, not when memory is next tidied."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.records import value_of
from pipeline.kafka.replaying import Batch
from pipeline.verifying import filling, logged, replacing
from pipeline.verifying.filling import Filling
from pipeline.verifying.replacing import OfAnOwner
from tests.builders import MODEL, enriched

KAFKA = KafkaConnection("nowhere:1")


class Broken:
    """Whatever is asked of it, it fails."""

    def __getattr__(self, _: str) -> Any:
        raise ZeroDivisionError


def unseen(fraction: float, seen: int) -> None: ...


def the_filling() -> Filling:
    broken: Any = Broken()
    return Filling(broken, MODEL, KAFKA, "memory.enriched", broken, broken)


async def fill() -> None:
    await the_filling().from_log(unseen)


async def compare() -> None:
    broken: Any = Broken()
    report: Any = broken
    await logged.compare_log(
        KAFKA, "memory.enriched", broken, broken, report, take=broken, on_progress=unseen
    )


async def publish_the_rest() -> None:
    broken: Any = Broken()
    fresh = OfAnOwner(broken, "fresh", broken, broken, KAFKA, "memory")
    await fresh._publish_the_rest(the_filling())  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("module", "read"), [(filling, fill), (logged, compare), (replacing, publish_the_rest)]
)
async def test_a_reader_of_the_log_is_closed_at_once(
    module: Any, read: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = value_of(enriched())
    now_ms = time.time_ns() // 1_000_000
    told = (None, value, None, 0, len(value), ())
    record = ConsumerRecord("memory.enriched", 0, 0, now_ms, 0, *told)
    closed: list[bool] = []

    async def replayed(*_: Any, **__: Any) -> AsyncGenerator[Batch]:
        try:
            yield Batch([record], 1.0, {})
        finally:
            closed.append(True)

    monkeypatch.setattr(module, "replayed", replayed)
    with pytest.raises(ZeroDivisionError):
        await read()
    assert closed
