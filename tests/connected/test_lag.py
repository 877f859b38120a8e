"""How far readers are, on Apache Kafka."""

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher

from pipeline.errors import Unavailable
from pipeline.kafka.cluster import cluster_id
from pipeline.kafka.connection import KafkaConnection, started_producer
from pipeline.kafka.lag import (
    GroupState,
    asking_offsets,
    group_members,
    group_states,
    topic_partitions,
    topic_ranges,
)
from pipeline.kafka.records import group_of
from schemas.topics import DEAD, EVENTS

pytestmark = pytest.mark.connected


@pytest.fixture
async def producer(kafka: KafkaConnection) -> AsyncIterator[AIOKafkaProducer]:
    producer = await started_producer(kafka)
    yield producer
    await producer.stop()


@pytest.fixture
def topic(prefix: str) -> str:
    """A topic with two partitions."""
    return EVENTS.under(prefix)


async def publish(producer: AIOKafkaProducer, topic: str, count: int, partition: int = 0) -> None:
    for number in range(count):
        await producer.send_and_wait(topic, b"%d" % number, partition=partition)


async def state(kafka: KafkaConnection, prefix: str, topic: str) -> GroupState | None:
    group = group_of(prefix, "classifier")
    return (await group_states(kafka, {group: topic}))[group]


async def test_a_group_that_never_read_has_all_before_it(
    kafka: KafkaConnection, prefix: str, topic: str, producer: AIOKafkaProducer
):
    await publish(producer, topic, 3)
    await publish(producer, topic, 2, partition=1)
    assert await state(kafka, prefix, topic) == GroupState(lag=5, members=0)


async def test_what_was_committed_is_no_lag_and_who_reads_is_a_member(
    kafka: KafkaConnection, prefix: str, topic: str, producer: AIOKafkaProducer
):
    await publish(producer, topic, 3)
    group = group_of(prefix, "classifier")
    consumer = AIOKafkaConsumer(topic, **kafka.options(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer.commit({TopicPartition(topic, 0): 2})
        assert await state(kafka, prefix, topic) == GroupState(lag=1, members=1)
        others = [group_of(prefix, name) for name in ("embedder", "query")]
        assert await group_members(kafka, [group, *others]) == {
            group: 1,
            **dict.fromkeys(others, 0),
        }
    finally:
        await consumer.stop()
    assert await state(kafka, prefix, topic) == GroupState(lag=1, members=0)


async def test_asking_where_topics_end_fetches_nothing(
    kafka: KafkaConnection, prefix: str, topic: str, monkeypatch: pytest.MonkeyPatch
):
    fetched: list[object] = []

    async def fetching(_: Fetcher, *request: object) -> bool:
        fetched.append(request)
        return True

    # Where topics are quiet, a fetch holds the connection back for half a second, time and again.
    monkeypatch.setattr(Fetcher, "_proc_fetch_request", fetching)
    async with asking_offsets(kafka, await topic_partitions(kafka, topic)) as consumer:
        for _ in range(20):
            await consumer.end_offsets(consumer.assignment())
    assert fetched == []


async def test_asking_about_a_topic_does_not_make_it(kafka: KafkaConnection, prefix: str):
    missing = f"{prefix}.missing"
    assert await state(kafka, prefix, missing) is None
    assert await topic_ranges(kafka, [missing]) == {}
    assert await topic_partitions(kafka, missing) == []


async def test_a_topics_records_are_counted(
    kafka: KafkaConnection, prefix: str, topic: str, producer: AIOKafkaProducer
):
    await publish(producer, topic, 3)
    await publish(producer, topic, 2, partition=1)
    ranges = await topic_ranges(kafka, [topic, DEAD.under(prefix)])
    assert {name: range_.records for name, range_ in ranges.items()} == {
        topic: 5,
        DEAD.under(prefix): 0,
    }


async def test_a_cluster_has_one_id(kafka: KafkaConnection):
    assert await cluster_id(kafka) == await cluster_id(kafka) != ""


async def test_a_cluster_that_is_away_is_unavailable():
    away = KafkaConnection("127.0.0.1:1")
    for asking in (topic_ranges(away, ["t"]), group_members(away, ["g"]), cluster_id(away)):
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await asking
