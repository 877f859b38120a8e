"""The promises of delivery, on Apache Kafka."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from secrets import token_hex
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.producer import message_accumulator
from aiokafka.producer import producer as producing
from aiokafka.structs import ConsumerRecord
from prometheus_client import REGISTRY

from pipeline.errors import Halted, Unavailable, Unusable
from pipeline.kafka import delivery
from pipeline.kafka.admin import asked
from pipeline.kafka.connection import KafkaConnection, started_producer
from pipeline.kafka.process import serve
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from pipeline.liveness import Liveness
from pipeline.stage import Stage
from schemas.events import PUBLISHED, Message
from schemas.topics import CLASSIFIED, DEAD, EVENTS, STORED, Topic
from tests.builders import captured
from tests.odd_headers import BUILDER, Name

pytestmark = pytest.mark.connected

LARGE = b"0" * 6 * 1024 * 1024
"""More than a producer of ours takes, a few bytes once packed."""

React = Callable[[Sequence[Any]], Awaitable[Sequence[Message | tuple[Message, ...]]]]


async def passed_on(events: Sequence[Any]) -> Sequence[Message]:
    """What a stage does that adds nothing."""
    return events


def stage(react: React = passed_on, *, max_records: int = 100) -> Stage:
    return Stage(
        name="classifier",
        reads=EVENTS,
        writes=CLASSIFIED,
        decode=PUBLISHED.validate_json,
        react=react,
        max_records=max_records,
    )


@asynccontextmanager
async def serving(kafka: KafkaConnection, prefix: str, *work: Stage) -> AsyncGenerator[None]:
    """A process with these stages, as far as Kafka can tell."""
    until, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(kafka, prefix, work, until=until, on_ready=ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 30)
        yield
    finally:
        until.set()
        await task


class World:
    """Publishes into a test's topics and reads what comes out of them."""

    def __init__(self, kafka: KafkaConnection, prefix: str, producer: AIOKafkaProducer) -> None:
        self.kafka, self.prefix, self.producer = kafka, prefix, producer

    async def publish(self, *events: Message, partition: int | None = None) -> None:
        for event in events:
            await self.put(value_of(event), key_of(event), partition, as_pairs(headers_of(event)))

    async def put(
        self,
        value: bytes | None,
        key: bytes | None = b"k",
        partition: int | None = None,
        headers: Any = (),
    ) -> None:
        producer: Any = self.producer
        await producer.send_and_wait(
            EVENTS.under(self.prefix), value, key=key, partition=partition, headers=list(headers)
        )

    async def arrived(self, topic: Topic, count: int, within_s: float = 20) -> list[Any]:
        """The first `count` records of a topic; fewer when no more come in time."""
        consumer = AIOKafkaConsumer(**self.kafka.options(), auto_offset_reset="earliest")
        name = topic.under(self.prefix)
        found: list[ConsumerRecord[Any, Any]] = []
        await consumer.start()
        try:
            consumer.assign([TopicPartition(name, partition) for partition in range(2)])
            async with asyncio.timeout(within_s):
                while len(found) < count:
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        found += batch
        except TimeoutError:
            pass
        finally:
            await consumer.stop()
        return found

    async def texts(self, topic: Topic, count: int, within_s: float = 20) -> list[str]:
        records = await self.arrived(topic, count, within_s)
        return [PUBLISHED.validate_json(record.value).text for record in records]  # pyright: ignore

    async def committed(self) -> int:
        """How many records of memory.events the stage has done with."""
        consumer = AIOKafkaConsumer(
            **self.kafka.options(), group_id=f"{self.prefix}.classifier", enable_auto_commit=False
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(EVENTS.under(self.prefix), p) for p in range(2)]
            return sum([await consumer.committed(tp) or 0 for tp in partitions])
        finally:
            await consumer.stop()


@pytest.fixture
async def world(kafka: KafkaConnection, prefix: str) -> AsyncIterator[World]:
    producer = await started_producer(kafka)
    yield World(kafka, prefix, producer)
    await producer.stop()


async def test_poison_costs_its_neighbours_nothing(world: World) -> None:
    await world.publish(captured(text="before"), partition=0)
    await world.put(b"{not json", key=b"poison", partition=0, headers=[("event-id", b"x")])
    await world.put(value_of(captured(text="odd headers")), partition=0, headers=[("a", None)])
    await world.put(value_of(captured(text="odder")), partition=0, headers=[("b", b"\xff\xfe")])
    await world.put(None, key=b"tombstone", partition=0)
    await world.publish(captured(text="after"), partition=0)
    async with serving(world.kafka, world.prefix, stage()):
        texts = await world.texts(CLASSIFIED, 4)
        dead = await world.arrived(DEAD, 2)
    assert texts == ["before", "odd headers", "odder", "after"]
    assert [record.value for record in dead if record.key == b"poison"] == [b"{not json"]
    assert len(dead) == 2
    assert await world.committed() == 6


async def test_none_or_several_may_come_of_one_each_where_its_key_belongs(world: World) -> None:
    others = [captured(text=f"beside it {number}") for number in range(8)]

    async def look_around(batch: Sequence[Any]) -> Sequence[tuple[Message, ...]]:
        return [tuple(others) if event.text == "many" else () for event in batch]

    await world.publish(captured(text="none"), captured(text="many"), partition=0)
    await world.publish(*others)
    async with serving(world.kafka, world.prefix, stage(look_around)):
        made = await world.arrived(CLASSIFIED, 8)
        belong = {record.key: record.partition for record in await world.arrived(EVENTS, 10)}
    assert {record.key: record.partition for record in made} == {
        key: belong[key] for other in others if (key := key_of(other)) is not None
    }
    assert await world.committed() == 10


async def test_a_dead_letter_tells_its_origin_and_reason(world: World) -> None:
    await world.put(b"{}", key=b"k1", partition=1, headers=[("mine", b"kept")])
    async with serving(world.kafka, world.prefix, stage()):
        (dead,) = await world.arrived(DEAD, 1)
    headers = dict(dead.headers)
    assert (dead.key, dead.value) == (b"k1", b"{}")
    assert headers["mine"] == b"kept"
    assert headers["dead-stage"] == b"classifier"
    assert headers["dead-topic"] == EVENTS.under(world.prefix).encode()
    assert (headers["dead-partition"], headers["dead-offset"]) == (b"1", b"0")
    assert b"type" in headers["dead-reason"]


async def test_whoever_waits_for_a_dead_letter_is_told(world: World) -> None:
    event = captured(text="never")

    async def refuse(_: Sequence[Any]) -> Sequence[Message]:
        raise Unusable("the model makes nothing of it")

    await world.publish(event)
    async with serving(world.kafka, world.prefix, stage(refuse)):
        (notice,) = await world.arrived(STORED, 1)
    assert str(event.event_id).encode() in notice.value
    assert b"the model makes nothing of it" in notice.value


async def test_what_is_unusable_is_found_among_its_batch(world: World) -> None:
    events = [captured(text=f"text {number}") for number in range(20)]

    async def choosy(batch: Sequence[Any]) -> Sequence[Message]:
        if any(event.text in ("text 3", "text 17") for event in batch):
            raise Unusable("cannot be embedded")
        return batch

    await world.publish(*events, partition=0)
    async with serving(world.kafka, world.prefix, stage(choosy)):
        texts = await world.texts(CLASSIFIED, 18)
        dead = await world.arrived(DEAD, 2)
    assert texts == [f"text {number}" for number in range(20) if number not in (3, 17)]
    assert {PUBLISHED.validate_json(d.value).text for d in dead} == {"text 3", "text 17"}  # pyright: ignore


async def test_a_neighbour_that_is_down_sets_nothing_aside(world: World) -> None:
    calls = 0

    async def down_for_a_while(batch: Sequence[Any]) -> Sequence[Message]:
        nonlocal calls
        calls += 1
        if calls < 5:
            raise Unavailable("the database restarts")
        return batch

    await world.publish(*[captured(text=f"text {n}") for n in range(5)], partition=0)
    async with serving(world.kafka, world.prefix, stage(down_for_a_while)):
        texts = await world.texts(CLASSIFIED, 5)
        assert await world.arrived(DEAD, 1, within_s=0.5) == []
    assert texts == [f"text {n}" for n in range(5)]


async def test_a_header_whose_name_is_no_utf_8_takes_nothing_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (producing, message_accumulator):
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", BUILDER)
    odd, producer = [(Name(b"caf\xe9"), b"x")], cast("Any", world.producer)
    values = [value_of(captured(text="before")), b"junk", value_of(captured(text="odd")), b"more"]
    topic = EVENTS.under(world.prefix)
    sent = [
        await producer.send(topic, value, key=b"k", partition=0, headers=odd if number else [])
        for number, value in enumerate(values)
    ]
    await asyncio.gather(*sent)
    await world.publish(captured(text="after"), partition=0)
    async with serving(world.kafka, world.prefix, stage(max_records=2)):
        assert await world.texts(CLASSIFIED, 3) == ["before", "odd", "after"]
        dead = await world.arrived(DEAD, 2)
    assert sorted(letter.value for letter in dead) == [b"junk", b"more"]
    assert {dict(letter.headers)[r"caf\xe9"] for letter in dead} == {b"x"}
    assert await world.committed() == 5


async def publish_large(world: World, value: bytes, **fields: Any) -> None:
    """As a producer does that was told to send more at once than ours."""
    large: Any = await started_producer(world.kafka, max_request_size=2**26)
    try:
        await large.send_and_wait(EVENTS.under(world.prefix), value, partition=0, **fields)
    finally:
        await large.stop()


async def test_what_unpacks_to_too_much_is_not_unpacked_and_stops_nobody(world: World) -> None:
    await publish_large(world, b"0" * 40_000_000)
    await world.publish(captured(text="after"), partition=0)
    async with serving(world.kafka, world.prefix, stage()):
        assert await world.texts(CLASSIFIED, 1) == ["after"]
        (dead,) = await world.arrived(DEAD, 1)
    headers = dict(dead.headers)
    assert (dead.value, headers["dead-cut"]) == (b"", b"value,key,headers")
    assert b"unpack to more than 8,388,608" in headers["dead-reason"]
    assert await world.committed() == 2


@pytest.mark.parametrize("where", ["key", "header"])
async def test_a_record_whose_key_or_header_is_too_large_to_be_set_aside_stops_nobody(
    world: World, where: str
) -> None:
    key, headers = (LARGE, []) if where == "key" else (b"k", [("x", LARGE)])
    await publish_large(world, b"junk", key=key, headers=headers)
    await world.publish(captured(text="after"), partition=0)
    async with serving(world.kafka, world.prefix, stage()):
        assert await world.texts(CLASSIFIED, 1) == ["after"]
        (dead,) = await world.arrived(DEAD, 1)
    assert dict(dead.headers)["dead-cut"] == (b"key" if where == "key" else b"headers")
    assert await world.committed() == 2


async def test_what_kafka_refuses_for_its_size_is_set_aside_and_all_else_goes_on(
    world: World,
) -> None:
    await takes_no_more_than(world, CLASSIFIED, 10_000)
    await takes_no_more_than(world, DEAD, 10_000)
    texts = [token_hex(20 if number % 3 else 7_990) for number in range(9)]
    events = [captured(text=text, metadata={"x": token_hex(8_000)[: len(text)]}) for text in texts]
    await world.publish(*events, partition=0)
    async with serving(world.kafka, world.prefix, stage()):
        small = [text for text in texts if len(text) < 100]
        assert await world.texts(CLASSIFIED, len(small)) == small
        # The producer goes on in the partitions that refused: it does so in later batches, too.
        await world.publish(captured(text="after"), partition=0)
        assert await world.texts(CLASSIFIED, len(small) + 1) == [*small, "after"]
        dead = await world.arrived(DEAD, len(texts) - len(small))
    assert len(dead) == len(texts) - len(small)
    assert {dict(letter.headers)["dead-cut"] for letter in dead} == {b"value"}
    assert await world.committed() == 10


async def test_an_unknown_error_ends_the_process_and_loses_nothing(world: World) -> None:
    async def broken(_: Sequence[Any]) -> Sequence[Message]:
        raise ZeroDivisionError

    await world.publish(captured(text="comes back"))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(
            serve(world.kafka, world.prefix, [stage(broken)], until=asyncio.Event()), 30
        )
    assert await world.committed() == 0
    async with serving(world.kafka, world.prefix, stage()):
        assert await world.texts(CLASSIFIED, 1) == ["comes back"]


async def test_a_stage_that_mostly_fails_stops_instead_of_emptying_its_topic(world: World) -> None:
    for number in range(800):
        await world.producer.send(EVENTS.under(world.prefix), b"junk", key=b"%d" % number)
    await world.producer.flush()
    with pytest.raises(Halted, match="most of the latest messages"):
        await asyncio.wait_for(
            serve(world.kafka, world.prefix, [stage(max_records=50)], until=asyncio.Event()), 30
        )
    assert 450 < len(await world.arrived(DEAD, 800, within_s=2)) <= 500


async def test_who_says_so_has_all_of_them_set_aside(world: World) -> None:
    for number in range(300):
        await world.producer.send(EVENTS.under(world.prefix), b"junk", key=b"%d" % number)
    await world.producer.flush()
    until = asyncio.Event()
    serving_all = serve(world.kafka, world.prefix, [stage()], until=until, halting_share=1)
    task = asyncio.create_task(serving_all)
    assert len(await world.arrived(DEAD, 300)) == 300
    until.set()
    await task


async def test_a_stop_finishes_the_batch_in_flight_and_commits(world: World) -> None:
    taken = asyncio.Event()

    async def slow(batch: Sequence[Any]) -> Sequence[Message]:
        taken.set()
        await asyncio.sleep(1)
        return batch

    await world.publish(*[captured(text=f"text {n}") for n in range(5)], partition=0)
    async with serving(world.kafka, world.prefix, stage(slow)):
        await asyncio.wait_for(taken.wait(), 20)
    assert await world.committed() == len(await world.arrived(CLASSIFIED, 5, within_s=3)) > 0


async def test_a_stop_does_not_wait_for_a_neighbour_that_is_down(world: World) -> None:
    taken = asyncio.Event()

    async def down(_: Sequence[Any]) -> Sequence[Message]:
        taken.set()
        raise Unavailable("away")

    await world.publish(captured(text="later"))
    async with asyncio.timeout(20), serving(world.kafka, world.prefix, stage(down)):
        await taken.wait()
    async with serving(world.kafka, world.prefix, stage()):
        assert await world.texts(CLASSIFIED, 1) == ["later"]


async def test_a_rebalance_waits_for_the_batch_in_flight(world: World) -> None:
    async def slow(batch: Sequence[Any]) -> Sequence[Message]:
        await asyncio.sleep(0.3)
        return batch

    for partition in range(2):
        events = [captured(text=f"{partition}-{n}") for n in range(40)]
        await world.publish(*events, partition=partition)
    async with serving(world.kafka, world.prefix, stage(slow, max_records=10)):
        await asyncio.sleep(1)
        async with serving(world.kafka, world.prefix, stage(slow, max_records=10)):
            texts = await world.texts(CLASSIFIED, 80)
            await asyncio.sleep(1)
    everything = await world.texts(CLASSIFIED, 1_000, within_s=2)
    assert sorted(texts) == sorted(everything)
    assert len(set(everything)) == len(everything) == 80


async def test_a_batch_is_no_larger_than_its_stage_can_do_in_time(world: World) -> None:
    sizes: list[int] = []

    async def counting(batch: Sequence[Any]) -> Sequence[Message]:
        sizes.append(len(batch))
        return batch

    for partition in range(2):
        events = [captured(text=f"{partition}-{n} " + "x" * 1_000) for n in range(20)]
        await world.publish(*events, partition=partition)
    async with serving(world.kafka, world.prefix, replace(stage(counting), max_bytes=5_000)):
        records = await world.arrived(CLASSIFIED, 40)
    for partition in range(2):
        texts = [PUBLISHED.validate_json(r.value).text for r in records if r.partition == partition]  # pyright: ignore
        assert [text.split()[0] for text in texts] == [f"{partition}-{n}" for n in range(20)]
    assert max(sizes) <= 4
    assert await world.committed() == sum(sizes) == 40


async def test_what_a_batch_left_for_later_comes_back_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PATIENCE_S", 0.0)
    calls = 0

    async def down_at_first(batch: Sequence[Any]) -> Sequence[Message]:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise Unavailable("away")
        return batch

    for partition in range(2):
        events = [captured(text=f"{partition}-{n} " + "x" * 1_000) for n in range(5)]
        await world.publish(*events, partition=partition)
    async with serving(world.kafka, world.prefix, replace(stage(down_at_first), max_bytes=5_000)):
        texts = await world.texts(CLASSIFIED, 10)
    assert len(set(texts)) == 10
    assert await world.committed() == 10


async def test_an_event_keeps_its_key_and_its_partition(world: World) -> None:
    event = captured(text="mine")
    await world.publish(event, partition=1)
    async with serving(world.kafka, world.prefix, stage()):
        (out,) = await world.arrived(CLASSIFIED, 1)
    assert (out.partition, out.key) == (1, key_of(event))
    assert "classifier" in PUBLISHED.validate_json(out.value).hops


async def test_an_idle_stage_shows_that_it_polls(kafka: KafkaConnection, prefix: str) -> None:
    until, liveness = asyncio.Event(), Liveness(limit_s=5)
    task = asyncio.create_task(serve(kafka, prefix, [stage()], until=until, liveness=liveness))
    await becomes(liveness, "ready")
    await asyncio.sleep(1)
    assert liveness.poll_age_s()["classifier"] < 0.5
    until.set()
    await task


async def test_whoever_watches_sees_that_a_neighbour_is_down(world: World) -> None:
    up, liveness, until = asyncio.Event(), Liveness(), asyncio.Event()

    async def away(batch: Sequence[Any]) -> Sequence[Message]:
        if not up.is_set():
            raise Unavailable("the database restarts")
        return batch

    await world.publish(captured(text="patience"))
    work = [stage(away)]
    task = asyncio.create_task(
        serve(world.kafka, world.prefix, work, until=until, liveness=liveness)
    )
    await becomes(liveness, "degraded")
    assert liveness.troubles == {"classifier": "the database restarts"}
    up.set()
    await becomes(liveness, "ready")
    until.set()
    await task


async def test_dead_letters_are_counted_and_many_are_a_trouble(world: World) -> None:
    before = (count("hybrid_memory_messages_used"), count("hybrid_memory_dead_letters"))
    await world.publish(*[captured(text=f"text {n}") for n in range(4)], partition=0)
    await world.put(b"junk", partition=0)
    until, liveness = asyncio.Event(), Liveness()
    task = asyncio.create_task(
        serve(world.kafka, world.prefix, [stage()], until=until, liveness=liveness)
    )
    assert len(await world.arrived(DEAD, 1)) == 1
    await becomes(liveness, "degraded")
    until.set()
    await task
    assert "20%" in liveness.troubles["classifier"]
    after = (count("hybrid_memory_messages_used"), count("hybrid_memory_dead_letters"))
    assert [now - then for now, then in zip(after, before, strict=True)] == [4, 1]


def count(metric: str) -> float:
    return REGISTRY.get_sample_value(f"{metric}_total", {"stage": "classifier"}) or 0


async def takes_no_more_than(world: World, topic: Topic, size: int) -> None:
    told = {"max.message.bytes": str(size)}
    kind, name = ConfigResourceType.TOPIC, topic.under(world.prefix)
    async with asked(world.kafka) as admin:
        await admin.alter_configs([ConfigResource(kind, name, configs=told)])


async def becomes(liveness: Liveness, state: str) -> None:
    async with asyncio.timeout(30):
        while liveness.state != state:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
