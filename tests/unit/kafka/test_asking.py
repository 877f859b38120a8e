"""Who gets no answer is told whom it waited for."""

import asyncio
from typing import Any

import pytest

from pipeline.errors import Refused, Unavailable
from pipeline.kafka.asking import Asking, Envelope
from pipeline.kafka.connection import KafkaConnection
from schemas.search import CountsAsked, ReplyTo


class Kafka:
    """Takes questions, and has nobody who answers them; or does not even take them."""

    def __init__(self, *, takes: int) -> None:
        self.takes = takes

    async def send_and_wait(self, *_: object, **__: object) -> None:
        if self.takes == 0:
            await asyncio.Event().wait()
        self.takes -= 1


@pytest.fixture
def asking() -> Asking:
    return Asking(KafkaConnection("kafka.example:9092"), "memory")


async def ask(asking: Asking, monkeypatch: pytest.MonkeyPatch, *, takes: int) -> None:
    async def ready() -> tuple[Any, ReplyTo]:
        return Kafka(takes=takes), ReplyTo(topic="answers", partition=0)

    monkeypatch.setattr(asking, "_ready", ready)
    await asking.ask(counting, timeout_s=0.1)


def counting(envelope: Envelope) -> CountsAsked:
    return CountsAsked(**envelope.fields())


async def test_a_question_that_nobody_answers_is_the_query_consumers(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="query consumer"):
        await ask(asking, monkeypatch, takes=100)


@pytest.mark.parametrize("takes", [0, 1])
async def test_a_question_that_kafka_does_not_take_is_kafkas(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    with pytest.raises(Unavailable, match=r"Kafka at kafka\.example:9092 did not take"):
        await ask(asking, monkeypatch, takes=takes)


async def test_what_was_closed_stays_closed(asking: Asking) -> None:
    await asking.close()
    with pytest.raises(Refused, match="closed"):
        await asking.ask(counting, timeout_s=1)
