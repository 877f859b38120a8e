"""Who gets no answer is told whom it waited for."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from pipeline.errors import Refused, Unavailable
from pipeline.kafka.asking import Asking, Envelope, topic_of
from pipeline.kafka.connection import KafkaConnection
from schemas.search import Asked, CountsAsked, MemoryAsked, ReplyTo
from schemas.topics import ASKED, OPERATOR_ASKED


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


async def ask(
    asking: Asking,
    monkeypatch: pytest.MonkeyPatch,
    *,
    takes: int,
    make: Callable[[Envelope], Asked] | None = None,
) -> None:
    async def ready() -> tuple[Any, ReplyTo]:
        return Kafka(takes=takes), ReplyTo(topic="answers", partition=0)

    monkeypatch.setattr(asking, "_ready", ready)
    await asking.ask(make or counting, timeout_s=0.1)


def counting(envelope: Envelope) -> CountsAsked:
    return CountsAsked(**envelope.fields())


def about_a_memory(envelope: Envelope) -> MemoryAsked:
    return MemoryAsked(**envelope.fields(), user_id="alice", memory_id="m")


async def test_a_question_that_nobody_answers_is_the_query_consumers(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=r"a query consumer run.*run query"):
        await ask(asking, monkeypatch, takes=100, make=about_a_memory)


async def test_an_operators_question_that_nobody_answers_is_the_operator_desks(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=r"an operator desk run.*run operator_desk"):
        await ask(asking, monkeypatch, takes=100)


def test_operators_ask_on_a_topic_of_their_own() -> None:
    now = datetime.now(UTC)
    envelope = Envelope(uuid4(), now, now, ReplyTo(topic="answers", partition=0))
    assert topic_of(about_a_memory(envelope)) is ASKED
    assert topic_of(counting(envelope)) is OPERATOR_ASKED


@pytest.mark.parametrize("takes", [0, 1])
async def test_a_question_that_kafka_does_not_take_is_kafkas(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, takes: int
) -> None:
    with pytest.raises(Unavailable, match=r"Kafka at kafka\.example:9092 did not take"):
        await ask(asking, monkeypatch, takes=takes)


async def test_the_time_is_kept_where_what_was_opened_takes_long_to_close(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave_up, closed = asyncio.Event(), asyncio.Event()

    async def start(_: AsyncExitStack) -> tuple[Any, ReplyTo]:
        try:
            return await asyncio.Future()
        finally:
            gave_up.set()
            await closed.wait()

    monkeypatch.setattr(asking, "_start", start)
    with pytest.raises(Unavailable, match="did not take"):
        await asyncio.wait_for(asking.ask(counting, timeout_s=0.05), 5)
    await gave_up.wait()
    closed.set()
    await asking.close()


async def test_what_was_closed_stays_closed(asking: Asking) -> None:
    await asking.close()
    with pytest.raises(Refused, match="closed"):
        await asking.ask(counting, timeout_s=1)


async def test_what_is_being_opened_while_it_is_closed_is_closed_too(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on, opened = asyncio.Event(), asyncio.Event(), list[str]()

    async def start(stack: AsyncExitStack) -> tuple[Any, ReplyTo]:
        opening.set()
        await go_on.wait()
        opened.append("opened")
        stack.callback(opened.append, "closed")
        return Kafka(takes=100), ReplyTo(topic="answers", partition=0)

    monkeypatch.setattr(asking, "_start", start)
    asks = [asyncio.create_task(asking.ask(counting, timeout_s=5)) for _ in range(2)]
    await opening.wait()
    closing = asyncio.create_task(asking.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    for ask in asks:
        with pytest.raises(Unavailable, match="closed before the answer came"):
            await ask
    assert opened == ["opened", "closed"]
