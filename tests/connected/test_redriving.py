"""What becomes of dead letters, on Apache Kafka."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from pipeline.contract.flows import flows
from pipeline.kafka.connection import KafkaConnection, started_producer
from pipeline.kafka.dead_letters import Letter, Selection, dead_headers
from pipeline.kafka.lag import topic_ranges
from pipeline.kafka.redriving import count_open, open_letters, settle
from schemas.events import STORED as NOTICES
from schemas.events import MemoryRedriven
from schemas.topics import ASKED, CLASSIFIED, DEAD, ENRICHED, OPERATOR_ASKED, STORED, Topic

pytestmark = pytest.mark.connected

EVENT_ID = uuid4()


class DeadLetters:
    """The dead letters of one test."""

    def __init__(self, kafka: KafkaConnection, prefix: str, producer: AIOKafkaProducer) -> None:
        self.kafka, self.prefix, self.producer = kafka, prefix, producer

    async def add(
        self, value: bytes, *, topic: Topic = CLASSIFIED, stage: str = "embedder", offset: int = 5
    ) -> None:
        own = [("event-id", str(EVENT_ID).encode())]
        failed: Any = ConsumerRecord(
            topic.under(self.prefix), 1, offset, 0, 0, b"k", value, None, 1, len(value), tuple(own)
        )
        headers = dead_headers(failed, stage=stage, reason="no vector", now=datetime.now(UTC))
        producer: Any = self.producer
        await producer.send_and_wait(
            DEAD.under(self.prefix), value, key=b"k", partition=0, headers=headers
        )

    async def open(self, selection: Selection | None = None) -> list[Letter]:
        found = open_letters(self.kafka, self.prefix, selection or Selection())
        return [letter async for letter in found]

    async def records(self, topic: Topic) -> list[Any]:
        """What is in a topic now."""
        name = topic.under(self.prefix)
        consumer = AIOKafkaConsumer(**self.kafka.options(), auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([TopicPartition(name, partition) for partition in range(2)])
            batches: Any = await consumer.getmany(timeout_ms=2_000)
            return [record for batch in batches.values() for record in batch]
        finally:
            await consumer.stop()

    async def kept(self) -> int:
        """Records that Kafka still has, marks included."""
        name = DEAD.under(self.prefix)
        return (await topic_ranges(self.kafka, [name]))[name].records


@pytest.fixture
async def dead(kafka: KafkaConnection, prefix: str) -> AsyncIterator[DeadLetters]:
    producer = await started_producer(kafka)
    yield DeadLetters(kafka, prefix, producer)
    await producer.stop()


async def test_a_redriven_letter_is_where_it_came_from_as_it_was(dead: DeadLetters) -> None:
    await dead.add(b"once more")
    done = await settle(dead.kafka, dead.prefix, Selection(), "redriven")
    (record,) = await dead.records(CLASSIFIED)
    assert (done.settled, record.partition, record.key, record.value) == (1, 1, b"k", b"once more")
    assert dict(record.headers) == {"event-id": str(EVENT_ID).encode(), "redriven": b"1"}


async def test_whoever_waits_for_a_redriven_event_is_told(dead: DeadLetters) -> None:
    await dead.add(b"once more")
    await settle(dead.kafka, dead.prefix, Selection(), "redriven")
    (notice,) = [NOTICES.validate_json(record.value) for record in await dead.records(STORED)]
    assert isinstance(notice, MemoryRedriven)
    assert notice.event_id == EVENT_ID


async def test_what_is_settled_is_gone_and_what_is_open_stays(dead: DeadLetters) -> None:
    for number in range(4):
        stage = "embedder" if number < 3 else "record_writer"
        await dead.add(b"%d" % number, stage=stage, offset=number)
    await settle(dead.kafka, dead.prefix, Selection(stage="record_writer"), "dropped")
    assert [letter.record.value for letter in await dead.open()] == [b"0", b"1", b"2"]
    assert await count_open(dead.kafka, dead.prefix) == 3
    await settle(dead.kafka, dead.prefix, Selection(), "redriven")
    assert await count_open(dead.kafka, dead.prefix) == await dead.kept() == 0
    assert sorted(record.value for record in await dead.records(CLASSIFIED)) == [b"0", b"1", b"2"]


async def test_settling_again_settles_nothing(dead: DeadLetters) -> None:
    await dead.add(b"open")
    await dead.add(b"settled", stage="vector_writer", offset=6)
    for expected in (1, 0):
        done = await settle(dead.kafka, dead.prefix, Selection(stage="vector_writer"), "redriven")
        assert done.settled == expected


async def test_one_that_is_of_no_topic_of_ours_is_not_redriven(dead: DeadLetters) -> None:
    await dead.add(b"elsewhere", topic=DEAD)
    done = await settle(dead.kafka, dead.prefix, Selection(), "redriven")
    assert [letter.record.value for letter in done.from_elsewhere] == [b"elsewhere"]
    assert await count_open(dead.kafka, dead.prefix) == 1


async def test_one_that_was_cut_is_not_redriven_and_can_be_dropped(dead: DeadLetters) -> None:
    await dead.add(b"0" * 2_500_000)
    await dead.add(b"whole", offset=6)
    done = await settle(dead.kafka, dead.prefix, Selection(), "redriven")
    assert (done.settled, [letter.cut for letter in done.cut]) == (1, [("value",)])
    assert [record.value for record in await dead.records(CLASSIFIED)] == [b"whole"]
    await settle(dead.kafka, dead.prefix, Selection(), "dropped")
    assert await count_open(dead.kafka, dead.prefix) == 0


async def test_whatever_topic_a_stage_reads_its_letters_go_back_to(dead: DeadLetters) -> None:
    # Desks answer a question that they cannot use: it leaves no letter.
    read = {flow.reads for flow in flows()} - {ASKED, OPERATOR_ASKED}
    for topic in read:
        await dead.add(topic.name.encode(), topic=topic)
    done = await settle(dead.kafka, dead.prefix, Selection(), "redriven")
    assert (done.settled, done.from_elsewhere) == (len(read), [])
    for topic in read:
        assert topic.name.encode() in {record.value for record in await dead.records(topic)}


async def test_a_record_that_two_stages_could_not_use_goes_back_once(dead: DeadLetters) -> None:
    for stage in ("record_writer", "vector_writer"):
        await dead.add(b"junk", topic=ENRICHED, stage=stage)
    done = await settle(dead.kafka, dead.prefix, Selection(stage="record_writer"), "redriven")
    assert (done.settled, await count_open(dead.kafka, dead.prefix)) == (1, 0)
    assert len(await dead.records(ENRICHED)) == 1


async def test_two_records_of_one_origin_both_go_back(dead: DeadLetters) -> None:
    for value in (b"before the topic was made anew", b"after"):
        await dead.add(value)
    done = await settle(dead.kafka, dead.prefix, Selection(), "redriven")
    assert (done.settled, len(await dead.records(CLASSIFIED))) == (2, 2)
