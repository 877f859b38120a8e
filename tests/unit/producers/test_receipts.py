"""When a receipt is done: each store has said so, for each partition; or a dead letter has."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition

from pipeline.domain.receipts import STORES, done
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.asking import Envelope
from pipeline.kafka.connection import KafkaConnection
from producers.receipts import TOKEN, Receipt, UserReceipt
from producers.waiting import Receipts
from producers.watch import Watch
from schemas.events import MemoryRedriven, MemorySetAside, Outcome
from schemas.search import ReceiptsAnswered, ReceiptsAsked, ReceiptState, ReplyTo
from tests.builders import enriched, user_forgotten

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVENT_ID = uuid4()
SET_ASIDE = MemorySetAside(event_id=EVENT_ID, stage="embedder", reason="no vector", at=NOON)


async def test_both_stores_must_have_said_so() -> None:
    event = enriched()
    watch = Watch(
        Receipt(
            user_id="alice",
            memory_id=event.memory_id,
            event_id=event.event_id,
            version=event.version,
        )
    )
    watch.hear(done(event, "record", "stored"))
    watch.hear(done(event, "record", "stored"))
    assert not watch.done.done()
    watch.hear(done(event, "index", "superseded"))
    assert watch.done.done()


async def test_what_became_of_another_publishing_under_the_same_key_is_not_heard() -> None:
    first = enriched(version=1)
    again = first.model_copy(update={"version": 2})
    watch = Watch(Receipt(user_id="alice", memory_id="m", event_id=first.event_id, version=1))
    for store in STORES:
        watch.hear(done(again, store, "superseded"))
    assert not watch.done.done()
    for store in STORES:
        watch.hear(done(first, store, "stored"))
    assert watch.outcome == "stored"


class Stores:
    """Hold the first version of everything."""

    async def ask(self, asking: Any, **_: Any) -> ReceiptsAnswered:
        asked: ReceiptsAsked = asking(
            Envelope(uuid4(), NOON, NOON, ReplyTo(topic="answers", partition=0))
        )
        outcomes: list[Outcome] = [
            "stored" if e.version == 1 else "superseded" for e in asked.events
        ]
        states = [
            ReceiptState(event_id=event.event_id, record=True, index=True, outcome=outcome)
            for event, outcome in zip(asked.events, outcomes, strict=True)
        ]
        return ReceiptsAnswered(question_id=asked.question_id, states=tuple(states))


async def test_two_publishings_under_one_key_have_each_an_outcome_of_their_own() -> None:
    stores: Any = Stores()
    receipts = Receipts(KafkaConnection("nowhere:1"), "memory", stores)
    twice = [
        Receipt(user_id="alice", memory_id="m", event_id=EVENT_ID, version=version)
        for version in (1, 2, 1)
    ]
    states = await receipts.ask(twice, timeout_s=1)
    assert [state.outcome for state in states] == ["stored", "superseded", "stored"]


async def test_a_users_forgetting_is_done_on_every_partition() -> None:
    copies = [user_forgotten(partition=partition, partitions=2) for partition in range(2)]
    watch = Watch(UserReceipt(user_id="alice", event_id=uuid4(), version=1, partitions=2))
    for copy in copies:
        watch.hear(done(copy, "record", "stored"))
    watch.hear(done(copies[0], "index", "stored"))
    assert not watch.done.done()
    watch.hear(done(copies[1], "index", "stored"))
    assert watch.done.done()


async def test_a_dead_letter_ends_the_wait_with_its_reason() -> None:
    watch = Watch(Receipt(user_id="alice", memory_id="m", event_id=EVENT_ID, version=1))
    watch.hear(SET_ASIDE)
    watch.give_up()
    with pytest.raises(Unusable, match="embedder: no vector"):
        watch.done.result()


async def test_what_was_redriven_is_not_given_up() -> None:
    watch = Watch(Receipt(user_id="alice", memory_id="m", event_id=EVENT_ID, version=1))
    watch.hear(SET_ASIDE)
    watch.hear(MemoryRedriven(event_id=EVENT_ID, at=NOON))
    watch.give_up()
    assert not watch.done.done()


class Notices:
    """The notices as a consumer sees them, of which it has read some."""

    def __init__(self) -> None:
        self.read, self.looks = 0, 0

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("memory.stored", 0)}

    async def end_offsets(self, partitions: set[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 2)

    async def position(self, _: TopicPartition) -> int:
        self.looks += 1
        return self.read


class Nobody:
    async def ask(self, *_: Any, **__: Any) -> Any:
        raise Unavailable("nobody answers")


@pytest.mark.parametrize("redriven", [True, False])
async def test_a_dead_letter_is_believed_when_all_notices_are_read(redriven: bool) -> None:
    notices: Any = Notices()
    nobody: Any = Nobody()
    receipts = Receipts(KafkaConnection("nowhere:1"), "memory", nobody)
    receipts._consumer = notices  # pyright: ignore[reportPrivateUsage]
    watch = Watch(Receipt(user_id="alice", memory_id="m", event_id=EVENT_ID, version=1))
    watch.hear(SET_ASIDE)
    believing = asyncio.create_task(receipts._believe([watch]))  # pyright: ignore[reportPrivateUsage]
    while not notices.looks:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert not watch.done.done()
    if redriven:
        watch.hear(MemoryRedriven(event_id=EVENT_ID, at=NOON))
    notices.read = 2
    await believing
    assert watch.done.done() == (not redriven)


async def test_what_the_stores_have_is_done_whatever_was_set_aside_before() -> None:
    watch = Watch(Receipt(user_id="alice", memory_id="m", event_id=EVENT_ID, version=1))
    watch.hear(SET_ASIDE)
    watch.learn(ReceiptState(event_id=EVENT_ID, record=True, index=True))
    watch.give_up()
    watch.done.result()


async def test_a_receipt_without_a_client_says_how_to_get_one() -> None:
    receipt = Receipt(user_id="alice", memory_id="m", event_id=uuid4(), version=1)
    with pytest.raises(Refused, match=r"client\.receipt"):
        await receipt.stored()


def test_a_token_is_the_receipt_again() -> None:
    memory = Receipt(user_id="alice", memory_id="m", event_id=uuid4(), version=1, if_absent=True)
    user = UserReceipt(user_id="alice", event_id=uuid4(), version=1, partitions=6)
    assert TOKEN.validate_json(memory.token) == memory
    assert TOKEN.validate_json(user.token) == user


async def test_only_what_both_stores_hold_is_stored() -> None:
    event = enriched()
    watch = Watch(
        Receipt(user_id="alice", memory_id="m", event_id=event.event_id, version=event.version)
    )
    watch.hear(done(event, "record", "stored"))
    assert watch.outcome is None
    watch.hear(done(event, "index", "superseded"))
    assert watch.outcome == "superseded"


async def test_what_the_stores_hold_now_counts_for_more_than_what_was_told_once() -> None:
    event = enriched()
    watch = Watch(
        Receipt(user_id="alice", memory_id="m", event_id=event.event_id, version=event.version)
    )
    for store in STORES:
        watch.hear(done(event, store, "stored"))
    watch.learn(ReceiptState(event_id=event.event_id, record=True, index=True, outcome="forgotten"))
    assert watch.outcome == "forgotten"


async def test_listening_that_begins_while_it_is_closed_ends_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opening, go_on, opened = asyncio.Event(), asyncio.Event(), list[str]()

    @asynccontextmanager
    async def following(*_: Any) -> AsyncGenerator[Any]:
        opening.set()
        await go_on.wait()
        opened.append("opened")
        yield object()
        opened.append("closed")

    async def rewound(*_: Any, **__: Any) -> None:
        pass

    async def hears_nothing(*_: Any, **__: Any) -> AsyncGenerator[Any]:
        await asyncio.Event().wait()
        yield

    for name, fake in {"following": following, "rewind": rewound, "records": hears_nothing}.items():
        monkeypatch.setattr(f"producers.waiting.{name}", fake)
    nobody: Any = Nobody()
    receipts = Receipts(KafkaConnection("nowhere:1"), "memory", nobody)
    receipt = Receipt(user_id="alice", memory_id="m", event_id=EVENT_ID, version=1)
    waits = [asyncio.create_task(receipts.wait([receipt], timeout_s=5)) for _ in range(2)]
    await opening.wait()
    closing = asyncio.create_task(receipts.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    for wait in waits:
        with pytest.raises(Refused, match="closed"):
            await wait
    assert opened == ["opened", "closed"]
