"""The promises of asking and answering, on Apache Kafka."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumers import operator_desk, query
from pipeline.domain.weights import Weights
from pipeline.errors import Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection, started_producer
from pipeline.kafka.process import serve
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.stage import Desk
from pipeline.stores.records_in_memory import RecordsInMemory
from producers.client import MemoryClient
from schemas.search import Answered, Asked, MemoryAnswered, SearchAnswered, SearchAsked
from schemas.topics import ANSWERED, ASKED, EVENTS, OPERATOR_ASKED, Topic
from tests.builders import DIMENSIONS, MODEL, caches, enriched, vectors_in_memory

pytestmark = pytest.mark.connected


async def echo(asked: Asked) -> Answered:
    """Answers with what was asked for."""
    match asked:
        case SearchAsked(text="slow"):
            await asyncio.sleep(1)
        case SearchAsked(text="refuse me"):
            raise Refused("No.")
        case SearchAsked(text="the index is down"):
            raise Unavailable("Try later.")
        case SearchAsked(text="a bug"):
            raise ZeroDivisionError
        case SearchAsked():
            pass
        case _:
            return MemoryAnswered(question_id=asked.question_id, memory=None)
    return SearchAnswered(question_id=asked.question_id, hits=(), search_ms=float(asked.limit))


ECHO = Desk(name="query", reads=ASKED, answer=echo)


@asynccontextmanager
async def answering(
    kafka: KafkaConnection, prefix: str, desks: Sequence[Desk] = (ECHO,)
) -> AsyncGenerator[None]:
    until, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(kafka, prefix, desks, until=until, on_ready=ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 30)
        yield
    finally:
        until.set()
        await task


@pytest.fixture
async def client(kafka: KafkaConnection, prefix: str) -> AsyncIterator[MemoryClient]:
    async with MemoryClient(kafka, prefix=prefix) as client, answering(kafka, prefix):
        yield client


async def test_each_asker_gets_its_own_answer(client: MemoryClient) -> None:
    answers = await asyncio.gather(
        *(client.search("anything", user_id="alice", limit=limit) for limit in range(1, 101))
    )
    assert [answer.search_ms for answer in answers] == list(range(1, 101))


async def test_a_slow_question_holds_up_nobody(client: MemoryClient) -> None:
    await client.search("warm up", user_id="alice")
    slow = asyncio.create_task(client.search("slow", user_id="alice"))
    await asyncio.sleep(0.05)
    await client.search("quick", user_id="alice")
    assert not slow.done()
    await slow


async def test_what_goes_wrong_is_told(client: MemoryClient) -> None:
    with pytest.raises(Refused, match="No"):
        await client.search("refuse me", user_id="alice")
    with pytest.raises(Unavailable, match="Try later"):
        await client.search("the index is down", user_id="alice")
    with pytest.raises(Refused, match="its log says why"):
        await client.search("a bug", user_id="alice")


async def test_a_search_without_a_user_is_refused_at_the_client(client: MemoryClient) -> None:
    for nobody in ("", "   ", None):
        with pytest.raises(Refused, match="user_id"):
            await client.search("anything", user_id=nobody)  # pyright: ignore[reportArgumentType]


async def test_a_deadline_is_kept(client: MemoryClient) -> None:
    await client.search("warm up", user_id="alice")
    with pytest.raises(Unavailable, match="query consumer"):
        await client.search("slow", user_id="alice", timeout_s=0.2)


async def test_without_a_query_consumer_the_asker_is_told(
    kafka: KafkaConnection, prefix: str
) -> None:
    async with MemoryClient(kafka, prefix=prefix) as client:
        with pytest.raises(Unavailable, match="hybrid-memory run query"):
            await client.search("anyone?", user_id="alice", timeout_s=1)


def question(prefix: str, **fields: Any) -> bytes:
    """A question as somebody else's program may write it."""
    now = datetime.now(UTC)
    asked = {
        "type": "SearchAsked",
        "question_id": str(uuid4()),
        "user_id": "alice",
        "asked_at": now.isoformat(),
        "deadline": (now + timedelta(seconds=10)).isoformat(),
        "reply_to": {"topic": ANSWERED.under(prefix), "partition": 0},
        "text": "anything",
    }
    return json.dumps(asked | fields).encode()


async def answers_to(
    kafka: KafkaConnection, prefix: str, *questions: bytes, topic: Topic = ASKED
) -> list[Any]:
    """What comes back on partition 0 within two seconds."""
    producer: Any = await started_producer(kafka)
    consumer = AIOKafkaConsumer(**kafka.options(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(ANSWERED.under(prefix), 0)])
        for asked in questions:
            await producer.send_and_wait(topic.under(prefix), asked)
        await asyncio.sleep(2)
        answers: list[Any] = []
        while batches := await consumer.getmany(timeout_ms=500):
            answers += [json.loads(r.value or b"") for batch in batches.values() for r in batch]
        return answers
    finally:
        await consumer.stop()
        await producer.stop()


async def test_a_search_without_a_user_is_answered_with_an_error(
    kafka: KafkaConnection, prefix: str
) -> None:
    nameless = json.loads(question(prefix))
    del nameless["user_id"]
    questions = (
        json.dumps(nameless).encode(),
        question(prefix, user_id=""),
        question(prefix, user_id=None),
        question(prefix, user_id=["alice", "bob"]),
    )
    async with answering(kafka, prefix):
        answers = await answers_to(kafka, prefix, *questions)
    assert [answer["type"] for answer in answers] == ["Failed"] * 4
    assert all("user_id" in answer["reason"] for answer in answers)


async def test_a_question_after_its_deadline_is_not_begun(
    kafka: KafkaConnection, prefix: str
) -> None:
    late = question(prefix, deadline=(datetime.now(UTC) - timedelta(seconds=1)).isoformat())
    async with answering(kafka, prefix):
        assert await answers_to(kafka, prefix, late) == []


async def test_a_question_cannot_have_its_answer_published_into_the_stream(
    kafka: KafkaConnection, prefix: str
) -> None:
    into_the_stream = question(prefix, reply_to={"topic": EVENTS.under(prefix), "partition": 0})
    no_partition = question(
        prefix, reply_to={"topic": ANSWERED.under(prefix), "partition": 1_000_000}
    )
    async with answering(kafka, prefix):
        answers = await answers_to(
            kafka, prefix, into_the_stream, no_partition, b"junk", b"", question(prefix)
        )
        consumer = AIOKafkaConsumer(**kafka.options())
        await consumer.start()
        ends = await consumer.end_offsets(
            [TopicPartition(EVENTS.under(prefix), partition) for partition in range(2)]
        )
        await consumer.stop()
    assert [answer["type"] for answer in answers] == ["SearchAnswered"]
    assert set(ends.values()) == {0}


async def test_who_may_only_search_learns_nothing_of_everybody_and_switches_nothing(
    kafka: KafkaConnection, prefix: str
) -> None:
    records, vectors = RecordsInMemory(), vectors_in_memory(MODEL, DIMENSIONS)
    for store in (records, vectors):
        await store.write([enriched()])
    desks = (
        query.stage(
            HashingEmbedder(), HeuristicClassifier(), records, vectors, Weights(), caches=caches()
        ),
        operator_desk.stage(records, vectors, caches()),
    )
    operators = [
        question(prefix, type="CountsAsked"),
        question(prefix, type="FingerprintsAsked"),
        question(prefix, type="FingerprintsOfAsked", keys=[str(uuid4())]),
        question(prefix, type="IndexReplaceAsked", step="switch", name=f"index-{'0' * 32}"),
    ]
    async with answering(kafka, prefix, desks), MemoryClient(kafka, prefix=prefix) as client:
        refused = await answers_to(kafka, prefix, *operators)
        assert [answer["type"] for answer in refused] == ["Failed"] * 4
        assert all("operator.asked" in answer["reason"] for answer in refused)
        assert not any(answer["retry"] for answer in refused)
        counts = await client.counts()
        assert (counts.record, counts.index) == (1, 1)
        assert await client.get("m", user_id="bob") is None
        (*_, last) = await answers_to(kafka, prefix, question(prefix), topic=OPERATOR_ASKED)
        assert (last["type"], "search.asked" in last["reason"]) == ("Failed", True)
