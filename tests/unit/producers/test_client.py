"""What the client publishes, what it refuses before it asks anybody, and once it was closed."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.errors import KafkaConnectionError

from pipeline.domain.clock import VersionClock
from pipeline.errors import Refused, Unavailable
from pipeline.kafka.asking import Envelope
from pipeline.kafka.connection import KafkaConnection
from producers import client as module
from producers import knowing, publishing
from producers.backlog import Backlog
from producers.client import MemoryClient, PartlyPublished
from producers.narrowing import narrowed
from schemas.events import Said
from schemas.filters import Where
from schemas.search import (
    Asked,
    MemoryAnswered,
    MemoryAsked,
    NewestAnswered,
    NewestAsked,
    RecordedMemory,
    ReplyTo,
    SearchFilter,
)
from schemas.topics import EVENTS
from tests.hearing import heard

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Kafka:
    """A producer's cluster with our topics, which takes whatever comes."""

    def __init__(self) -> None:
        self.client = self
        self.connections = 1
        self.sent: list[dict[str, Any]] = []
        self.goes_away_after: int | None = None
        """Events that it takes."""

    async def fetch_all_metadata(self) -> Any:
        return self

    def topics(self) -> set[str]:
        return {EVENTS.under("memory")}

    async def partitions_for(self, _: str) -> set[int]:
        return {0, 1}

    async def send(self, _: str, value: bytes, **__: object) -> asyncio.Future[None]:
        if self.goes_away_after is not None and len(self.sent) >= self.goes_away_after:
            raise KafkaConnectionError("away")
        self.sent.append(json.loads(value))
        taken = asyncio.get_running_loop().create_future()
        taken.set_result(None)
        return taken

    async def stop(self) -> None:
        self.connections -= 1


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()

    async def started(_: KafkaConnection) -> Any:
        return kafka

    monkeypatch.setattr(publishing, "started_producer", started)
    return kafka


@pytest.mark.parametrize("address", ["localhost:abc", "", None, ["localhost:9092"]])
def test_an_address_that_cannot_be_one_is_refused_at_once(address: Any) -> None:
    with pytest.raises(Refused, match=r"host:port\[,host:port\]"):
        MemoryClient(address)


def test_the_address_of_a_connection_is_looked_at_too() -> None:
    with pytest.raises(Refused, match="host:port"):
        MemoryClient(KafkaConnection("localhost"))


async def test_a_client_is_entered_once(kafka: Kafka) -> None:
    client = MemoryClient()
    async with client:
        with pytest.raises(Refused, match="make another"):
            await client.__aenter__()
    with pytest.raises(Refused, match="make another"):
        await client.__aenter__()
    assert kafka.connections == 0


async def test_a_client_that_could_not_connect_may_try_again(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MemoryClient(prefix="elsewhere")
    monkeypatch.setattr(publishing, "TOPICS_PATIENCE_S", 0.0)
    with pytest.raises(Refused, match="has no topic elsewhere"):
        await client.__aenter__()
    monkeypatch.setattr(kafka, "topics", lambda: {EVENTS.under("elsewhere")})
    async with client:
        pass


async def test_who_waits_for_a_topic_is_told_of_which(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (
        ("TOPICS_PATIENCE_S", 0.1),
        ("TELL_AFTER_S", 0.0),
        ("TOPICS_PAUSE_S", 0.01),
    ):
        monkeypatch.setattr(publishing, name, seconds)
    with heard() as logged, pytest.raises(Refused, match="has no topic memry"):
        await MemoryClient(prefix="memry").__aenter__()
    (told,) = logged
    assert told["topic"] == "memry.events"


async def test_a_receipt_outlives_its_client_as_a_token_only(kafka: Kafka) -> None:
    async with MemoryClient() as client:
        receipt = await client.remember("hi", user_id="alice")
    for use in (receipt.stored, receipt.status):
        with pytest.raises(Refused, match=r"client\.receipt\(receipt\.token\)"):
            await use()
    with pytest.raises(Refused, match="was closed"):
        client.receipt(receipt.token)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"text": " "}, "say what to look for"),
        ({"filter": {"metadata": {"price": {}}}}, r"filter\.metadata\.price: is empty"),
        ({"filter": {"topic": "food"}}, "filter: 'topic' is not known here: there are and, or"),
        (
            {"filter": {"or": [{"speaker": {"like": "A"}}]}},
            r"filter\.or\.0\.speaker: 'like' is not",
        ),
        (
            {"filter": {"occurred_from": "May", "or": [{"domain": "other"}]}},
            "occurred_from: is no time",
        ),
        (
            {"filter": {"tiers": ["gold"]}},
            r"filter\.tiers\.0: must be 'short', 'medium', 'long' or 'archived'",
        ),
        ({"filter": {"tiers": "short"}}, r"filter\.tiers: must be a list"),
        (
            {"filter": {"tiers": ["gold"], "or": [{"domain": "other"}]}},
            r"filter\.tiers\.0: must be 'short'",
        ),
        ({"filter": "food"}, "filter: must be"),
    ],
)
async def test_a_search_that_cannot_be_right_asks_nobody(
    kafka: Kafka, asked: dict[str, Any], why: str
) -> None:
    question: dict[str, Any] = {"text": "dinner", "user_id": "alice"} | asked
    async with MemoryClient() as client:
        with pytest.raises(Refused, match=why):
            await client.search(**question)


class Desk:
    """Answers what the record holds; `memory` is a state of alice's memory m1."""

    def __init__(self, memory: RecordedMemory | None = None, newest: int = 0) -> None:
        self.memory, self.newest = memory, newest
        self.memories = 3
        self.asked = 0
        self.away = False
        self.forgotten_until = 0
        self.forgotten: bool | None = None
        """Whether the memory itself is; unless given, where anything was forgotten."""
        self.last: Asked | None = None

    async def ask(self, make: Callable[[Envelope], Asked], *, timeout_s: float) -> Any:
        self.asked += 1
        if self.away:
            raise Unavailable("nobody answers")
        asked = make(Envelope(uuid4(), NOON, NOON, ReplyTo(topic="answers", partition=0)))
        self.last = asked
        if isinstance(asked, NewestAsked):
            return NewestAnswered(
                question_id=asked.question_id, version=self.newest, memories=self.memories
            )
        return MemoryAnswered(
            question_id=asked.question_id,
            memory=self.memory,
            forgotten=self.forgotten_until > 0 if self.forgotten is None else self.forgotten,
            forgotten_until=self.forgotten_until,
        )

    async def close(self) -> None: ...


def known(version: int) -> RecordedMemory:
    return RecordedMemory(
        memory_id="m1", text="hi", occurred_at=NOON, version=version, domain="other"
    )


@asynccontextmanager
async def asking(desk: Desk) -> AsyncGenerator[MemoryClient]:
    client = MemoryClient()
    client._asking = desk  # type: ignore[assignment]  # pyright: ignore
    async with client:
        yield client


AHEAD = VersionClock().next() + 3_600_000_000
"""What a clock says that is an hour ahead."""


async def test_a_memory_is_asked_for_as_it_was_then(kafka: Kafka) -> None:
    desk = Desk(known(7))
    async with asking(desk) as client:
        assert await client.get("m1", user_id="alice", as_of=NOON) == known(7)
        assert isinstance(desk.last, MemoryAsked)
        assert desk.last.as_of == NOON
        await client.get("m1", user_id="alice")
        assert desk.last.as_of is None


async def test_a_moment_without_a_zone_is_none(kafka: Kafka) -> None:
    no_zone = NOON.replace(tzinfo=None)
    async with asking(Desk()) as client:
        with pytest.raises(Refused, match="as_of"):
            await client.get("m1", user_id="alice", as_of=no_zone)
        with pytest.raises(Refused, match="as_of"):
            await client.search("dinner", user_id="alice", as_of=no_zone)


async def test_a_forgetting_tells_what_was_forgotten_before(kafka: Kafka) -> None:
    desk = Desk()
    desk.forgotten_until = 9
    async with asking(desk) as client:
        again = await client.forget("m1", user_id="alice")
        assert (again.found, again.was_forgotten) == (False, True)
        assert "was_forgotten" not in again.token


async def test_forgetting_a_user_tells_how_many_memories_there_were(kafka: Kafka) -> None:
    desk = Desk()
    async with asking(desk) as client:
        assert await client.count(user_id="alice") == 3
        gone = await client.forget_user("alice")
        assert gone.memories == 3
        assert "memories" not in gone.token
        desk.away = True
        assert (await client.forget_user("alice")).memories is None


@pytest.mark.parametrize("how", [{}, {"idempotency_key": "k"}])
async def test_what_another_client_forgot_is_not_revised_from_memory(
    kafka: Kafka, how: dict[str, Any]
) -> None:
    desk = Desk()
    async with asking(desk) as client:
        mine = await client.remember("the pin", user_id="alice", memory_id="m1", **how)
        desk.forgotten_until = mine.version + 1
        with pytest.raises(Refused, match="was forgotten"):
            await client.revise("m1", "new", user_id="alice")
        again = await client.remember("anew", user_id="alice", memory_id="m1")
        assert again.version > desk.forgotten_until
        await client.revise("m1", "new", user_id="alice")
    assert [event["text"] for event in kafka.sent] == ["the pin", "anew", "new"]


async def test_what_went_with_its_user_before_it_arrived_is_not_revised(kafka: Kafka) -> None:
    desk = Desk()
    async with asking(desk) as client:
        mine = await client.remember("the pin", user_id="alice", memory_id="m1")
        desk.forgotten_until, desk.forgotten = mine.version + 1, False
        assert await client.get("m1", user_id="alice") is None
        desk.forgotten_until, desk.forgotten = 0, None
        assert (await client.forget("m1", user_id="alice")).found is False


async def test_what_the_record_knows_is_its_own_to_tell(kafka: Kafka) -> None:
    desk = Desk()
    async with asking(desk) as client:
        mine = await client.remember("mine", user_id="alice", memory_id="m1")
        desk.memory = known(mine.version)
        await client.get("m1", user_id="alice")
        # Whatever becomes of it now, what was remembered here is no state of it any more.
        desk.memory, desk.away = None, True
        assert (await client.forget("m1", user_id="alice")).found is None


async def test_a_forgetting_tells_whether_there_was_anything(kafka: Kafka) -> None:
    async with asking(Desk()) as client:
        nothing = await client.forget("m1", user_id="alice")
        assert (nothing.found, nothing.was_forgotten) == (False, False)
        assert client.receipt(nothing.token) == nothing
        # Our own is there, even if the stores do not have it yet.
        await client.remember("hi", user_id="alice", memory_id="m1")
        assert (await client.forget("m1", user_id="alice")).found is True
    async with asking(Desk(known(5))) as client:
        assert (await client.forget("m1", user_id="alice")).found is True


async def test_a_forgetting_is_published_where_nobody_can_say_what_there_is(kafka: Kafka) -> None:
    desk = Desk()
    desk.away = True
    async with asking(desk) as client:
        assert (await client.forget("m1", user_id="alice")).found is None
    assert [event["type"] for event in kafka.sent] == ["MemoryForgotten"]


async def test_a_forgetting_is_newer_than_what_a_clock_ahead_has_said(kafka: Kafka) -> None:
    async with asking(Desk(known(AHEAD), newest=AHEAD)) as client:
        assert (await client.forget("m1", user_id="alice")).version > AHEAD
        assert (await client.forget_user("alice")).version > AHEAD


async def test_what_is_remembered_after_a_user_was_forgotten_is_newer_than_that(
    kafka: Kafka,
) -> None:
    async with asking(Desk(newest=AHEAD)) as client:
        forgetting = await client.forget_user("alice")
        receipt = await client.remember("hi again", user_id="alice")
        assert receipt.version > forgetting.version
        assert (await client.remember("hi", user_id="bob")).version < AHEAD


async def test_one_key_for_two_memories_is_two_events(kafka: Kafka) -> None:
    async with asking(Desk()) as client:
        same: dict[str, Any] = {"user_id": "alice", "idempotency_key": "k"}
        one, again, other = [
            await client.remember("hi", memory_id=memory_id, **same) for memory_id in "aab"
        ]
        assert one.event_id == again.event_id != other.event_id
        first, second = [await client.remember("hi", **same) for _ in range(2)]
        assert (first.memory_id, first.event_id) == (second.memory_id, second.event_id)


@pytest.mark.parametrize(("on_its_way", "asked"), [(False, 2), (True, 3)])
async def test_revising_what_is_not_there_waits_only_for_what_may_come(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, on_its_way: bool, asked: int
) -> None:
    looks = iter([not on_its_way, True])

    async def nothing_on_its_way(*_: object) -> bool:
        return next(looks)

    monkeypatch.setattr(module, "nothing_on_its_way", nothing_on_its_way)
    monkeypatch.setattr(knowing, "LOOK_EVERY_S", 0.0)
    desk = Desk()
    async with asking(desk) as client:
        with pytest.raises(Refused, match=r"no memory m1 .* and none is on its way"):
            await client.revise("m1", "new", user_id="alice", timeout_s=60)
    assert desk.asked >= asked


ANA_OR = Where.model_validate({"or": [{"speaker": "Ana"}]})
PRICE = Where.model_validate({"metadata": {"price": {"eq": 3.5}}})


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"speaker": "Ana", "topics": ["a"]}, SearchFilter(speaker="Ana", topics=("a",))),
        ({"or": [{"speaker": "Ana"}]}, SearchFilter(where=ANA_OR)),
        (ANA_OR, SearchFilter(where=ANA_OR)),
        (
            {"or": [{"speaker": "Ana"}], "occurred_from": NOON},
            SearchFilter(where=ANA_OR, occurred_from=NOON),
        ),
        ({"metadata": {"price": 3.5}}, SearchFilter(where=PRICE)),
        (None, SearchFilter()),
    ],
)
def test_a_filter_nests_where_it_must(given: Any, asked: SearchFilter) -> None:
    assert narrowed(given) == asked


async def test_what_was_cut_off_is_gone_on_with_under_the_same_ids(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT", 2)
    kafka.goes_away_after = 3
    told: list[dict[str, Any]] = [{"text": f"text {n}", "user_id": "alice"} for n in range(4)]
    told += [{"text": "text 4", "user_id": "alice", "idempotency_key": "k"}]
    async with MemoryClient() as client:
        with pytest.raises(PartlyPublished, match=r"remember_many\(error\.left\)") as caught:
            await client.remember_many(told)
        cut_off = caught.value
        assert [receipt.memory_id for receipt in cut_off.accepted] == [
            sent["memory_id"] for sent in kafka.sent[:2]
        ]
        kafka.goes_away_after = None
        receipts = [*cut_off.accepted, *await client.remember_many(cut_off.left)]
    # One of them was sent twice: it is the same memory, told the same.
    first, again = kafka.sent[2:4]
    for same in ("memory_id", "text", "occurred_at"):
        assert first[same] == again[same]
    assert [sent["text"] for sent in kafka.sent] == [f"text {n}" for n in (0, 1, 2, 2, 3, 4)]
    assert len({receipt.memory_id for receipt in receipts}) == 5
    async with MemoryClient() as client:
        (whole,) = await client.remember_many(told[4:])
    assert whole.event_id == receipts[4].event_id


async def test_what_there_is_no_room_for_is_left(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behind(_: object) -> int:
        return len(kafka.sent)

    monkeypatch.setattr(Backlog, "_behind", behind)
    told = [{"text": f"text {n}", "user_id": "alice"} for n in range(3_000)]
    async with MemoryClient(most_behind=500, when_behind="refuse") as client:
        with pytest.raises(PartlyPublished, match="500 events behind") as caught:
            await client.remember_many(told)
    assert len(kafka.sent) == len(caught.value.accepted) == 500
    assert caught.value.left[0].text == "text 500"


async def test_who_remembers_one_text_is_told_its_id_to_repeat_it(kafka: Kafka) -> None:
    kafka.goes_away_after = 0
    async with MemoryClient() as client:
        with pytest.raises(PartlyPublished) as caught:
            await client.remember("hi", user_id="alice")
        (left,) = caught.value.left
        assert f"memory_id={left.memory_id!r}" in str(caught.value)
        with pytest.raises(Unavailable) as own:
            await client.remember("hi", user_id="alice", memory_id="m1")
        assert "memory_id=" not in str(own.value)


async def test_what_was_said_before_may_be_text_wherever_it_is_given(kafka: Kafka) -> None:
    before = ["Which day?", Said(text="The second", speaker="Ana")]
    async with MemoryClient() as client:
        await client.remember("Of June", user_id="alice", preceding=before)
        await client.remember_many(
            [{"text": "Of June", "user_id": "alice", "preceding": before}],
        )
        for wrong in ([""], "text", [3]):
            with pytest.raises(Refused, match="preceding"):
                await client.remember("hi", user_id="alice", preceding=wrong)  # pyright: ignore[reportArgumentType]
    one, many = (sent["preceding"] for sent in kafka.sent)
    assert one == many
    assert [said["text"] for said in one] == ["Which day?", "The second"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "Whose memories"),
        ({"user_id": " "}, "Whose memories"),
        ({"user_id": "alice", "all_users": True}, "one of them"),
    ],
)
def test_a_subscription_that_cannot_be_right_is_refused_at_the_call(
    asked: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        MemoryClient().subscribe(**asked)


async def test_with_its_version_and_key_it_is_the_same_event_again(kafka: Kafka) -> None:
    memory = {"text": "I moved to Oslo", "user_id": "alice", "idempotency_key": "k"}
    async with MemoryClient() as client:
        first, again = [
            (await client.remember_many([memory], versions=[1_700_000_000_000_000]))[0]
            for _ in range(2)
        ]
    assert first.event == again.event
    assert kafka.sent[0] == kafka.sent[1]


@pytest.mark.parametrize(
    ("key", "versions", "why"),
    [("k", [], "give one for each"), (None, [1], "idempotency_key"), ("k", [0], "microseconds")],
)
async def test_versions_that_cannot_be_right_are_refused(
    kafka: Kafka, key: str | None, versions: list[int], why: str
) -> None:
    memory = {"text": "I moved to Oslo", "user_id": "alice", "idempotency_key": key}
    async with MemoryClient() as client:
        with pytest.raises(Refused, match=why):
            await client.remember_many([memory], versions=versions)
    assert kafka.sent == []


DAY = datetime(2026, 5, 1, tzinfo=UTC)
WRITTEN = ("2026-05-01", "2026-05-01T00:00:00", "2026-05-01T02:00:00+02:00")


@pytest.mark.parametrize("written", WRITTEN)
async def test_a_moment_in_writing_is_utc_unless_it_says_otherwise(
    kafka: Kafka, written: str
) -> None:
    desk = Desk(known(7))
    async with asking(desk) as client:
        await client.remember("a", user_id="alice", occurred_at=written)
        await client.remember_many([{"text": "a", "user_id": "alice", "occurred_at": written}])
        await client.revise("m1", "b", user_id="alice", occurred_at=written)
        async with client.conversation(user_id="alice") as said:
            await said.remember("a", occurred_at=written)
            await said.remember("b", occurred_at=written)
        await client.get("m1", user_id="alice", as_of=written)
    assert {datetime.fromisoformat(event["occurred_at"]) for event in kafka.sent} == {DAY}
    (before,) = kafka.sent[-1]["preceding"]
    assert datetime.fromisoformat(before["occurred_at"]) == DAY
    assert isinstance(desk.last, MemoryAsked)
    assert desk.last.as_of == DAY
    assert narrowed({"occurred_from": written}) == SearchFilter(occurred_from=DAY)
    assert narrowed({"occurred_until": written, "or": [{"speaker": "Ana"}]}) == SearchFilter(
        occurred_until=DAY, where=ANA_OR
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (datetime(2026, 5, 1), "occurred_at: has no time zone"),  # noqa: DTZ001 - that is the point
        ("tomorrow", "occurred_at: is no time"),
    ],
)
async def test_a_moment_that_could_be_several_is_refused(
    kafka: Kafka, given: Any, why: str
) -> None:
    async with MemoryClient() as client:
        with pytest.raises(Refused, match=why):
            await client.remember("a", user_id="alice", occurred_at=given)
    with pytest.raises(Refused, match=why.replace("occurred_at", "occurred_from")):
        narrowed({"occurred_from": given})
    assert kafka.sent == []
