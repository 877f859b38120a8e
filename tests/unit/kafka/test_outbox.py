"""Nothing is too large to be set aside, nor does what is too large cost anything else."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import MessageSizeTooLargeError

from pipeline.errors import Unavailable
from pipeline.kafka.connection import MAX_REQUEST_BYTES
from pipeline.kafka.dead_letters import Letter, letter_of
from pipeline.kafka.outbox import Dead, Outbox
from pipeline.kafka.publishing import Outgoing
from pipeline.kafka.records import Unread
from schemas.events import STORED as NOTICES
from schemas.events import MemorySetAside
from schemas.topics import CLASSIFIED, DEAD, STORED

MIB = 1024 * 1024
EVENT_ID = uuid4()
TOLD = ("event-id", str(EVENT_ID).encode())


class Kafka:
    """Takes records of up to so many bytes, and refuses all of a batch that holds a larger one."""

    def __init__(self, most: int = 3 * MIB) -> None:
        self.most = most
        self.taken = list[tuple[str, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]]()
        self._together = list[tuple[asyncio.Future[Any], Any, int]]()

    async def send(
        self, topic: str, value: bytes | None, *, key: Any, partition: Any, headers: Any
    ) -> asyncio.Future[Any]:
        assert partition is None
        size = len(value or b"") + len(key or b"") + sum(len(n) + len(v) for n, v in headers)
        if size > MAX_REQUEST_BYTES:
            raise MessageSizeTooLargeError
        loop = asyncio.get_running_loop()
        if not self._together:
            loop.call_later(0.01, self._arrive)
        self._together.append((loop.create_future(), (topic, value, key, headers), size))
        return self._together[-1][0]

    def _arrive(self) -> None:
        together, self._together = self._together, []
        refused = any(size > self.most for *_, size in together)
        for acknowledged, record, _ in together:
            if refused:
                acknowledged.set_exception(MessageSizeTooLargeError())
            else:
                self.taken.append(record)
                acknowledged.set_result(None)

    def letters(self) -> list[Letter]:
        return [
            letter_of(as_read(topic, value, key, headers))
            for topic, value, key, headers in self.taken
            if topic == "memory.dead"
        ]

    def notices(self) -> list[MemorySetAside]:
        read = [
            NOTICES.validate_json(value or b"")
            for topic, value, *_ in self.taken
            if topic == "memory.stored"
        ]
        return [notice for notice in read if isinstance(notice, MemorySetAside)]


def as_read(topic: str, value: Any, key: Any, headers: Any) -> Any:
    return ConsumerRecord(topic, 1, 9, 0, 0, key, value, None, 0, 0, tuple(headers))


def unusable(value: Any = b"no event", key: Any = b"k", headers: Any = (TOLD,)) -> Dead:
    return Dead(as_read("memory.events", value, key, headers), "it is no event")


def outbox(kafka: Any) -> Outbox:
    return Outbox(kafka, "memory", "classifier")


@pytest.mark.parametrize(
    ("large", "cut", "is_whole"),
    [
        ({"value": b"0" * 6 * MIB}, ("value",), False),
        ({"key": b"0" * 6 * MIB}, ("key",), False),
        ({"headers": (("x", b"0" * 6 * MIB), TOLD)}, ("headers",), True),
        ({"headers": (("x" * 6 * MIB, b""), TOLD)}, ("headers",), True),
        ({"headers": (*[("", b"")] * 600_000, TOLD)}, ("headers",), True),
        ({"headers": (("event-id", b"-" * 6 * MIB + TOLD[1]),)}, ("headers",), True),
        (
            {"value": b"0" * 3 * MIB, "key": b"0" * MIB, "headers": (TOLD, ("x", b"0" * MIB))},
            ("value", "key", "headers"),
            False,
        ),
    ],
    ids=["value", "key", "header", "name", "many", "event-id", "all"],
)
async def test_what_is_set_aside_is_cut_until_kafka_takes_it_and_says_so(
    large: dict[str, Any], cut: tuple[str, ...], is_whole: bool
) -> None:
    kafka = Kafka()
    async with asyncio.timeout(5):
        await outbox(kafka).set_aside([unusable(**large)])
    (letter,), (notice,) = kafka.letters(), kafka.notices()
    assert (letter.cut, letter.is_whole) == (cut, is_whole)
    assert (letter.event_id, letter.origin) == (EVENT_ID, "memory.events/1/9")
    assert letter.reason.startswith("Only the first ")
    assert letter.reason.endswith(" are kept. it is no event")
    assert all(name in letter.reason for name in cut)
    assert (notice.event_id, notice.reason) == (EVENT_ID, letter.reason)


async def test_what_is_no_larger_is_kept_as_it_was() -> None:
    kafka, headers = Kafka(), (TOLD, ("mine", b"0" * 60_000), ("mine", b"again"))
    await outbox(kafka).set_aside([unusable(b"0" * 2 * MIB, b"k" * 1_024, headers)])
    ((_, value, key, own), _), (letter,) = kafka.taken, kafka.letters()
    assert (value, key) == (b"0" * 2 * MIB, b"k" * 1_024)
    assert [each for each in own if not each[0].startswith("dead-")] == [*headers]
    assert (letter.cut, letter.is_whole, letter.reason) == ((), True, "it is no event")


async def test_what_redriving_needs_is_kept_before_all_other_headers() -> None:
    kafka = Kafka()
    needed = (TOLD, ("redriven", b"3"), ("type", b"MemoryCaptured"))
    await outbox(kafka).set_aside([unusable(headers=(*[("x", b"0" * 60_000)] * 3, *needed))])
    (letter,) = kafka.letters()
    assert (letter.event_id, letter.redriven) == (EVENT_ID, 3)
    assert {*needed} <= {*letter.record.headers}


async def test_where_kafka_takes_little_a_stub_is_set_aside_and_its_neighbours_whole() -> None:
    kafka = Kafka(most=10_000)
    small, large = (
        unusable(b"small"),
        unusable(b"0" * 50_000, b"k" * 1_000, (TOLD, ("x", b"0" * 5_000))),
    )
    await outbox(kafka).set_aside([small, large])
    letters = {letter.record.value: letter for letter in kafka.letters()}
    assert letters.keys() == {b"small", b"0" * 1_024}
    assert letters[b"small"].cut == ()
    assert letters[b"0" * 1_024].cut == ("value", "key", "headers")
    assert letters[b"0" * 1_024].event_id == EVENT_ID
    assert len(kafka.notices()) >= 2


async def test_where_kafka_takes_nothing_at_all_nothing_is_given_up() -> None:
    with pytest.raises(Unavailable, match=r"raise max\.message\.bytes"):
        await outbox(Kafka(most=10)).set_aside([unusable()])


async def test_what_is_too_large_is_told_and_all_else_published_once() -> None:
    kafka = Kafka(most=10_000)
    sizes = (5, 20_000, 6, 3 * MIB, 7)
    refused = await outbox(kafka).publish([Outgoing(CLASSIFIED, b"0" * n, b"k", ()) for n in sizes])
    assert [len(value or b"") for _, value, *_ in kafka.taken] == [5, 6, 7]
    assert refused == {
        1: (
            "Kafka refuses what classifier made of it, 20000 bytes: more than memory.classified takes "
            "(max.message.bytes)"
        ),
        3: f"classifier made {3 * MIB} bytes of it, too large for Kafka",
    }


async def test_what_falls_alone_would_go_back_to_where_it_was_to_go() -> None:
    kafka = Kafka()
    its = outbox(kafka)
    dead = its.fallen_alone(Outgoing(CLASSIFIED, b"reading", b"key", (TOLD,)), "too large")
    await its.set_aside([dead])
    # Whoever waits for its event has nothing to fear: both stores have it.
    ((topic, value, key, _),), (letter,) = kafka.taken, kafka.letters()
    assert (topic, value, key) == (DEAD.under("memory"), b"reading", b"key")
    assert (letter.topic, letter.partition, letter.offset) == ("memory.classified", None, None)
    assert not kafka.notices()
    assert STORED.under("memory") not in {name for name, *_ in kafka.taken}


async def test_what_was_not_even_read_is_set_aside_as_such() -> None:
    kafka = Kafka()
    await outbox(kafka).set_aside([unusable(Unread("offset 9 is too much"), b"", ())])
    (letter,) = kafka.letters()
    assert (letter.record.value, letter.origin) == (b"", "memory.events/1/9")
    assert (letter.cut, letter.is_whole) == (("value", "key", "headers"), False)
