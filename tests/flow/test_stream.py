"""What an application sees: publish, wait, find, revise, forget, subscribe."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord

from pipeline.domain.clock import VersionClock
from pipeline.embedded import Stack
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.connection import KafkaConnection, started_producer
from pipeline.kafka.dead_letters import Selection, dead_headers, notice, utc_now
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from pipeline.kafka.redriving import settle
from producers.client import MemoryClient, NewMemory
from producers.receipts import Receipt
from schemas.events import MemoryEnriched, MemoryForgotten, MemorySetAside, Message, Said
from schemas.search import SearchAnswered
from schemas.topics import DEAD, EVENTS, STORED
from tests.builders import captured

pytestmark = pytest.mark.connected


@pytest.fixture
def user() -> str:
    """A user nobody else uses."""
    return f"user-{uuid4().hex[:8]}"


async def remembered(memory: MemoryClient, *texts: str, user: str, **fields: object) -> list[str]:
    """Remembers and waits until all can be found; their ids."""
    receipts = await memory.remember_many(
        [{"text": text, "user_id": user, **fields} for text in texts]
    )
    await memory.stored(receipts, timeout_s=120)
    return [receipt.memory_id for receipt in receipts]


def ids(answer: SearchAnswered) -> list[str]:
    return [hit.memory_id for hit in answer.hits]


async def test_what_was_remembered_is_found_by_its_meaning(memory: MemoryClient, user: str) -> None:
    thai, *_ = await remembered(
        memory,
        "I love spicy Thai food",
        "The deployment failed because of a missing database migration",
        "My sister moved to Lisbon",
        user=user,
    )
    answer = await memory.search("dinner ideas", user_id=user, limit=2)
    assert ids(answer)[0] == thai
    assert len(answer.hits) == 2
    assert answer.hits[0].text == "I love spicy Thai food"
    assert 1 >= answer.hits[0].score > answer.hits[1].score


async def test_a_revision_replaces_the_text_and_keeps_the_rest(
    memory: MemoryClient, user: str
) -> None:
    (memory_id,) = await remembered(
        memory, "I love spicy Thai food", user=user, metadata={"source": "chat"}, speaker="Ana"
    )
    receipt = await memory.revise(memory_id, "I gave up spicy food", user_id=user)
    await receipt.stored(timeout_s=60)
    (hit,) = (await memory.search("spicy food", user_id=user)).hits
    assert hit.text == "I gave up spicy food"
    assert (hit.metadata, hit.speaker) == ({"source": "chat"}, "Ana")


async def test_a_revision_right_after_needs_no_wait(memory: MemoryClient, user: str) -> None:
    receipt = await memory.remember("The meeting is on Monday", user_id=user)
    revised = await memory.revise(receipt.memory_id, "The meeting is on Friday", user_id=user)
    await revised.stored(timeout_s=60)
    (hit,) = (await memory.search("when do we meet?", user_id=user)).hits
    assert hit.text == "The meeting is on Friday"


async def test_what_was_forgotten_is_gone_and_cannot_be_revised(
    memory: MemoryClient, user: str
) -> None:
    keep, drop = await remembered(memory, "My dog is called Rex", "My PIN is 0815", user=user)
    await (await memory.forget(drop, user_id=user)).stored(timeout_s=60)
    assert ids(await memory.search("what is my PIN?", user_id=user)) == [keep]
    assert await memory.get(drop, user_id=user) is None
    with pytest.raises(Refused, match="forgotten"):
        await memory.revise(drop, "My PIN is 4711", user_id=user)


async def test_forgetting_a_user_takes_everything_and_nobody_elses(
    memory: MemoryClient, user: str
) -> None:
    other = f"{user}-neighbour"
    await remembered(memory, *[f"Fact number {n}" for n in range(20)], user=user)
    await remembered(memory, "A fact of mine", user=other)
    await (await memory.forget_user(user)).stored(timeout_s=60)
    assert ids(await memory.search("facts", user_id=user)) == []
    assert len(ids(await memory.search("facts", user_id=other))) == 1
    await remembered(memory, "A new beginning", user=user)
    assert len(ids(await memory.search("facts", user_id=user))) == 1


async def test_the_same_memory_id_of_two_users_is_two_memories(
    memory: MemoryClient, user: str
) -> None:
    other = f"{user}-neighbour"
    await remembered(memory, "I am the first", user=user, memory_id="1")
    await remembered(memory, "I am the second", user=other, memory_id="1")
    await (await memory.forget("1", user_id=other)).stored(timeout_s=60)
    (hit,) = (await memory.search("who am I?", user_id=user)).hits
    assert hit.text == "I am the first"
    assert ids(await memory.search("who am I?", user_id=other)) == []


async def test_an_idempotency_key_makes_repeating_harmless(memory: MemoryClient, user: str) -> None:
    async def say(text: str = "I live in Porto") -> str:
        receipt = await memory.remember(text, user_id=user, idempotency_key="message-17")
        await receipt.stored(timeout_s=60)
        return receipt.memory_id

    first = await say()
    assert await say("I live in Lisbon") == first
    (hit,) = (await memory.search("where do I live?", user_id=user)).hits
    assert hit.text == "I live in Porto"
    await (await memory.revise(first, "I live in Braga", user_id=user)).stored(timeout_s=60)
    await say()
    (hit,) = (await memory.search("where do I live?", user_id=user)).hits
    assert hit.text == "I live in Braga"
    await (await memory.forget(first, user_id=user)).stored(timeout_s=60)
    await say()
    assert ids(await memory.search("where do I live?", user_id=user)) == []


async def test_of_two_under_one_key_that_are_awaited_together_each_is_told_its_own(
    memory: MemoryClient, user: str
) -> None:
    said = {"text": "I like tea", "user_id": user, "idempotency_key": "tea"}
    receipts = await memory.remember_many([said, said])
    assert await memory.stored(receipts, timeout_s=60) == ["stored", "superseded"]
    assert [await receipt.stored() for receipt in receipts] == ["stored", "superseded"]


async def test_a_receipt_tells_what_became_of_its_event_also_later_and_elsewhere(
    stream: Stack, memory: MemoryClient, user: str
) -> None:
    said = await memory.remember("I live in Porto", user_id=user)
    assert await said.stored(timeout_s=60) == "stored"
    revised = await memory.revise(said.memory_id, "I live in Braga", user_id=user)
    assert await revised.stored(timeout_s=60) == "stored"
    async with MemoryClient(stream.kafka_bootstrap_servers) as other:
        assert await other.receipt(said.token).stored(timeout_s=30) == "superseded"
        unknown = await other.forget("never was", user_id=user)
        known = await other.forget(said.memory_id, user_id=user)
        assert (unknown.found, known.found) == (False, True)
        # Neither is waited for in its order: what came after it counts.
        late = await other.remember("I live in Faro", user_id=user)
        assert await (await other.forget_user(user)).stored(timeout_s=60) == "stored"
        assert await late.stored(timeout_s=30) == "forgotten"
        assert (await other.receipt(revised.token).status()).outcome == "forgotten"


async def test_whoever_subscribes_sees_it_go_by(memory: MemoryClient, user: str) -> None:
    seen: list[MemoryEnriched | MemoryForgotten] = []

    async def watch() -> None:
        async for event in memory.subscribe(user_id=user, forgotten=True):
            assert isinstance(event, MemoryEnriched | MemoryForgotten)
            seen.append(event)
            if len(seen) == 2:
                return

    watching = asyncio.create_task(watch())
    await asyncio.sleep(1)
    await remembered(memory, "Not for this subscriber", user=f"{user}-neighbour")
    (memory_id,) = await remembered(memory, "We ship the parser on Friday", user=user)
    await memory.forget(memory_id, user_id=user)
    await asyncio.wait_for(watching, 60)
    enriched, forgotten = seen
    assert isinstance(enriched, MemoryEnriched)
    assert enriched.text == "We ship the parser on Friday"
    assert enriched.text_vector.shape == (1, 384)
    assert list(enriched.hops) == ["classifier", "embedder"]
    assert isinstance(forgotten, MemoryForgotten)


async def test_a_receipt_can_be_asked_about_from_another_process(
    memory: MemoryClient, stream: Stack, user: str
) -> None:
    receipt = await memory.remember("Ask me later", user_id=user)
    token = receipt.token
    async with MemoryClient(stream.kafka_bootstrap_servers) as other:
        later = other.receipt(token)
        await later.stored(timeout_s=60)
        state = await later.status()
    assert (state.record, state.index) == (True, True)


async def test_a_receipt_that_takes_too_long_says_so(memory: MemoryClient, user: str) -> None:
    receipt = await memory.remember("Soon", user_id=user)
    never = receipt.model_copy(update={"event_id": uuid4(), "version": receipt.version + 10**12})
    with pytest.raises(Unavailable, match="not stored within 1 s"):
        await never.answered_by(memory._receipts).stored(timeout_s=1)  # pyright: ignore


async def test_filters_narrow_a_search(memory: MemoryClient, user: str) -> None:
    await memory.remember_many(
        [
            NewMemory(
                text="We chose Postgres for the billing database",
                user_id=user,
                memory_id="old",
                occurred_at=datetime(2026, 1, 5, tzinfo=UTC),
                metadata={"project": "billing"},
            ),
            NewMemory(
                text="We chose Kafka for the events",
                user_id=user,
                memory_id="new",
                occurred_at=datetime(2026, 6, 5, tzinfo=UTC),
                metadata={"project": "events"},
                run_id="standup-7",
                preceding=(Said(text="What do we use for the events?"),),
            ),
        ]
    )
    await remembered(memory, "I like sunsets", user=user, memory_id="other")
    question = "which technology did we choose?"

    async def found(**filters: object) -> set[str]:
        return set(ids(await memory.search(question, user_id=user, filter=filters)))

    assert await found() == {"old", "new", "other"}
    assert await found(occurred_from="2026-03-01T00:00:00Z", domain="coding") == {"new"}
    assert await found(occurred_until="2026-03-01T00:00:00Z") == {"old"}
    assert await found(metadata={"project": "billing"}) == {"old"}
    assert await found(run_id="standup-7") == {"new"}
    assert await found(domain="coding") == {"old", "new"}
    with pytest.raises(Refused):
        await found(nonsense=1)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 16_000,
        "พรุ่งนี้ฉันจะไปตลาด",
        "🦜🌶️",
        "שלום עולם",
        "‮desrever",
        "a\u0301 \u200b zero",
        "\t.\n",
    ],
)
async def test_any_text_can_be_remembered(memory: MemoryClient, user: str, text: str) -> None:
    await remembered(memory, text, user=user)
    (hit,) = (await memory.search("anything", user_id=user)).hits
    assert hit.text == text


@pytest.mark.parametrize("text", ["", "   ", "a\x00b", "lone \ud800 surrogate", "x" * 16_001])
async def test_a_text_that_cannot_be_kept_is_refused(
    memory: MemoryClient, user: str, text: str
) -> None:
    with pytest.raises(Refused, match="text"):
        await memory.remember(text, user_id=user)


async def test_an_unknown_user_has_no_memories(memory: MemoryClient) -> None:
    assert (await memory.search("anything", user_id=str(uuid4()))).hits == ()


async def test_a_dead_letter_of_a_while_ago_still_ends_the_wait(
    memory: MemoryClient, stream: Stack, user: str
) -> None:
    receipt = await memory.remember("Fine until somebody publishes junk under its id", user_id=user)
    await receipt.stored(timeout_s=60)
    event_id = uuid4()
    producer: Any = await started_producer(KafkaConnection(stream.kafka_bootstrap_servers))
    headers = [("event-id", str(event_id).encode())]
    await producer.send_and_wait(EVENTS.under("memory"), b"{}", key=b"junk", headers=headers)
    await producer.stop()
    await asyncio.sleep(2)
    lost = receipt.model_copy(update={"event_id": event_id, "version": receipt.version + 1})
    async with MemoryClient(stream.kafka_bootstrap_servers) as other:
        with pytest.raises(Unusable, match="dead letters at classifier"):
            await other.receipt(lost.token).stored(timeout_s=30)


async def test_what_is_redriven_is_waited_for_again(
    memory: MemoryClient, stream: Stack, user: str
) -> None:
    kafka = KafkaConnection(stream.kafka_bootstrap_servers)
    event = captured("Set aside once", user_id=user, version=VersionClock().next())
    failed: Any = as_failed(event)
    reason = "the model was broken"
    producer: Any = await started_producer(kafka)
    for topic, value, headers in (
        (
            DEAD,
            failed.value,
            dead_headers(failed, stage="classifier", reason=reason, now=utc_now()),
        ),
        (STORED, *as_notice(notice(failed, stage="classifier", reason=reason, now=utc_now()))),
    ):
        await producer.send_and_wait(
            topic.under("memory"), value, key=key_of(event), headers=headers
        )
    await producer.stop()
    receipt = Receipt(
        user_id=user, memory_id=event.memory_id, event_id=event.event_id, version=event.version
    )
    with pytest.raises(Unusable, match=reason):
        await memory.receipt(receipt.token).stored(timeout_s=30)
    await settle(kafka, "memory", Selection(), "redriven")
    await memory.receipt(receipt.token).stored(timeout_s=60)
    async with MemoryClient(stream.kafka_bootstrap_servers) as other:
        await other.receipt(receipt.token).stored(timeout_s=30)


@pytest.mark.parametrize("whole_user", [False, True])
async def test_what_was_found_can_be_forgotten_by_whoever_has_a_slow_clock(
    memory: MemoryClient, stream: Stack, user: str, whole_user: bool
) -> None:
    ahead = VersionClock().next() + 3_600_000_000
    event = captured("Remembered where the clock is an hour ahead", user_id=user, version=ahead)
    producer: Any = await started_producer(KafkaConnection(stream.kafka_bootstrap_servers))
    name, headers = EVENTS.under("memory"), as_pairs(headers_of(event))
    await producer.send_and_wait(name, value_of(event), key=key_of(event), headers=headers)
    await producer.stop()
    async with asyncio.timeout(60):
        while not (await memory.search("clock", user_id=user)).hits:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    forgetting: Any = (
        memory.forget_user(user) if whole_user else memory.forget(event.memory_id, user_id=user)
    )
    await (await forgetting).stored(timeout_s=60)
    assert (await memory.search("clock", user_id=user)).hits == ()
    assert await memory.get(event.memory_id, user_id=user) is None


def as_failed(event: Message) -> Any:
    """The record of an event that the classifier could not use."""
    value, headers = value_of(event), as_pairs(headers_of(event))
    name = EVENTS.under("memory")
    return ConsumerRecord(name, 0, 5, 0, 0, key_of(event), value, None, 1, 1, tuple(headers))


def as_notice(notice: MemorySetAside | None) -> tuple[bytes, Any]:
    assert notice is not None
    return value_of(notice), as_pairs(headers_of(notice))
