"""Whose turn it is at a desk, and what becomes of an answer that nobody waits for any more."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from pipeline.ending import ended
from pipeline.kafka import desk
from pipeline.kafka.desk import DeskDelivery
from pipeline.kafka.records import Record
from pipeline.stage import Desk
from schemas.search import (
    ANSWERED,
    Answered,
    Asked,
    CountsAnswered,
    CountsAsked,
    Failed,
    NewestAnswered,
    NewestAsked,
    ReplyTo,
)
from schemas.topics import ANSWERED as ANSWERS
from schemas.topics import ASKED


@dataclass
class Taken:
    """A question as it comes from Kafka."""

    value: bytes
    offset: int = 0


@dataclass
class Replies:
    """Keeps what is sent."""

    sent: list[Answered] = field(default_factory=list[Answered])

    async def send_and_wait(self, _topic: str, value: bytes, **_: Any) -> None:
        self.sent.append(ANSWERED.validate_json(value))


class Waiting:
    """A desk that answers each user when the test lets it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.let: dict[str, asyncio.Event] = {}
        self.replies = Replies()
        made = Desk(name="query", reads=ASKED, answer=self._answer)
        self.delivery = DeskDelivery(made, cast("Any", self.replies), "test")

    async def _answer(self, asked: Asked) -> Answered:
        user = asked.user_id if isinstance(asked, NewestAsked) else ""
        self.begun.append(user)
        try:
            await self.let.setdefault(user, asyncio.Event()).wait()
        finally:
            self.ended.append(user)
        if isinstance(asked, NewestAsked):
            return NewestAnswered(question_id=asked.question_id, version=1)
        return CountsAnswered(question_id=asked.question_id, record=1, index=1)

    def open_for(self, *users: str) -> None:
        for user in users:
            self.let.setdefault(user, asyncio.Event()).set()

    def take(self, asked: Asked) -> asyncio.Task[None]:
        taken = Taken(asked.model_dump_json().encode())
        return asyncio.create_task(self.delivery.take(cast("Record", taken)))

    def ask(self, user: str, *, seconds: float = 60, id: UUID | None = None) -> asyncio.Task[None]:
        return self.take(NewestAsked(user_id=user, **envelope(seconds, id)))


def envelope(seconds: float, id: UUID | None = None) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "question_id": id or uuid4(),
        "asked_at": now,
        "deadline": now + timedelta(seconds=seconds),
        "reply_to": ReplyTo(topic=ANSWERS.under("test"), partition=0),
    }


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not met():  # noqa: ASYNC110 - of any kind
            await asyncio.sleep(0.001)


async def test_however_much_one_user_asks_the_others_are_answered() -> None:
    at = Waiting()
    hers = [at.ask("mallory") for _ in range(100)]
    await until(lambda: len(at.begun) == at.delivery.desk.workers_a_user)
    at.open_for("bob")
    await asyncio.wait_for(asyncio.gather(*(at.ask("bob") for _ in range(20))), 10)
    assert len(at.replies.sent) == 20
    at.open_for("mallory")
    await asyncio.gather(*hers)
    assert len(at.replies.sent) == 120
    assert at.begun.count("mallory") == 100
    assert len(at.delivery.turns) == 0, "nobody is remembered who asks nothing"


async def test_there_are_never_more_answered_than_there_are_workers() -> None:
    at = Waiting()
    tasks = [at.ask(f"user {n % 10}") for n in range(100)]
    await until(lambda: len(at.begun) == at.delivery.desk.max_workers)
    await asyncio.sleep(0.01)
    assert len(at.begun) == at.delivery.desk.max_workers
    await ended(*tasks)
    assert len(at.delivery.turns) == 0


async def test_at_its_deadline_an_answer_is_given_up() -> None:
    at = Waiting()
    begun = [at.ask("mallory", seconds=1) for _ in range(at.delivery.desk.workers_a_user)]
    await until(lambda: len(at.begun) == len(begun))
    waiting = [at.ask("mallory", seconds=0.05) for _ in range(12)]
    async with asyncio.timeout(10):
        await asyncio.gather(*begun, *waiting)
    assert len(at.begun) == len(at.ended) == len(begun)
    assert not at.replies.sent
    at.open_for("mallory")
    await at.ask("mallory")
    assert [type(each) for each in at.replies.sent] == [NewestAnswered]


async def test_what_an_operator_has_begun_is_finished() -> None:
    at = Waiting()
    task = at.take(CountsAsked(**envelope(0.05)))
    await until(lambda: bool(at.begun))
    await asyncio.sleep(0.1)
    assert not at.ended
    at.open_for("")
    await task
    assert [type(each) for each in at.replies.sent] == [CountsAnswered]


async def test_a_question_that_is_asked_again_meanwhile_is_answered_once() -> None:
    at = Waiting()
    own = uuid4()
    first = at.ask("alice", id=own)
    await until(lambda: bool(at.begun))
    await at.ask("alice", id=own)
    at.open_for("alice")
    await first
    assert (len(at.begun), len(at.replies.sent)) == (1, 1)
    await at.ask("alice", id=own)
    assert len(at.replies.sent) == 2, "the first answer may be lost"


async def test_who_asks_far_too_much_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MOST_OF_A_USER", 10)
    at = Waiting()
    tasks = [at.ask("mallory") for _ in range(10)]
    await until(lambda: len(at.begun) == at.delivery.desk.workers_a_user)
    await at.ask("mallory")
    (told,) = at.replies.sent
    assert isinstance(told, Failed)
    assert (told.retry, "10 questions of this user" in told.reason) == (True, True)
    await ended(*tasks)
