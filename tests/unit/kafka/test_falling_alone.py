"""What is too large for Kafka falls alone: nothing of others, and no process, ends with it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import ConsumerRecord

from consumers import contextualizer, record_writer
from pipeline.kafka.dead_letters import letter_of
from pipeline.kafka.delivery import StageDelivery
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from pipeline.liveness import Liveness
from pipeline.stage import Onward, Stage
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import PUBLISHED, MemoryCaptured, MemoryEnriched, Message
from schemas.topics import CLASSIFIED, EVENTS
from tests.builders import captured, enriched

AT = datetime(2026, 5, 1, tzinfo=UTC)


class Kafka:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.taken = list[tuple[str, bytes, Any, Any]]()

    async def send(
        self, topic: str, value: bytes, *, key: Any, headers: Any, **_: Any
    ) -> asyncio.Future[None]:
        self.taken.append((topic, value, key, headers))
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged

    def memories(self, topic: str) -> list[str]:
        return [json.loads(value)["memory_id"] for name, value, *_ in self.taken if name == topic]


class Delivery(StageDelivery):
    """A delivery that nobody has subscribed: it commits nothing."""

    async def take(self, messages: Sequence[Message]) -> None:
        topic = self.stage.reads.under("memory")
        records: list[Any] = [
            ConsumerRecord(
                topic, 0, n, 4_000_000_000_000, 0, key_of(each), value_of(each), None, 0, 0,
                tuple(as_pairs(headers_of(each))),
            )
            for n, each in enumerate(messages)
        ]  # fmt: skip
        await self._deliver(records)


def delivering(stage: Stage, kafka: Any) -> Delivery:
    return Delivery(stage, kafka, "memory", asyncio.Event(), Liveness())


def turn(user_id: str, number: int, topics: Sequence[str] = ()) -> MemoryEnriched:
    return enriched(
        f"turn {number}",
        user_id=user_id,
        memory_id=f"{user_id}{number}",
        run_id="r",
        occurred_at=AT + timedelta(seconds=number),
        topics=tuple(topics),
    )


async def test_a_reading_that_is_too_large_takes_nobody_elses_along() -> None:
    kafka, records = Kafka(), RecordsInMemory()
    beyond = [f"{'t' * 250}{n}" for n in range(8_500)]
    states = [turn("mallory", 0, beyond), turn("mallory", 1), *(turn("bob", n) for n in range(3))]
    notices: Any = await record_writer.stage(records).react(states)
    await delivering(contextualizer.stage(records), kafka).take(notices)
    assert sorted(kafka.memories("memory.classified")) == ["bob0", "bob1", "bob2", "mallory1"]
    ((topic, value, key, headers),) = [
        each for each in kafka.taken if each[0] != "memory.classified"
    ]
    letter = letter_of(ConsumerRecord(topic, 0, 0, 0, 0, key, value, None, 0, 0, tuple(headers)))
    # No notice of anybody's: all their events are stored.
    assert (topic, letter.topic, letter.stage) == (
        "memory.dead",
        "memory.classified",
        "contextualizer",
    )
    assert key == key_of(states[0])
    assert b'"mallory0"' in value


async def test_what_is_too_large_to_follow_ends_no_process() -> None:
    kafka, beyond = Kafka(), {f"k{n}": "0" * 1_000 for n in range(2_200)}
    event = captured(memory_id="m")
    larger = MemoryCaptured.model_construct(None, **{**dict(event), "metadata": beyond})

    async def passed_on(events: Sequence[Any]) -> Sequence[Message]:
        return events

    async def follow(_: Any) -> AsyncGenerator[Sequence[Onward]]:
        yield [Onward(EVENTS, larger), Onward(EVENTS, captured(memory_id="beside it"))]

    stage = Stage(
        name="classifier",
        reads=EVENTS,
        writes=CLASSIFIED,
        decode=PUBLISHED.validate_json,
        react=passed_on,
        follow=follow,
    )
    await delivering(stage, kafka).take([event])
    assert kafka.memories("memory.classified") == ["m"]
    assert kafka.memories("memory.events") == ["beside it"]
    assert [topic for topic, *_ in kafka.taken].count("memory.dead") == 1
