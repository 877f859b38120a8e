"""Anything at every other door: it is taken, or refused in our words, and nobody else notices."""

import asyncio
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord

from consumers import operator_desk, query
from pipeline.cli.reaching import read_settings
from pipeline.cli.rows import memory_of
from pipeline.domain.weights import Weights
from pipeline.errors import PipelineError, Refused
from pipeline.health import answering
from pipeline.kafka.asking import Asking
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.dead_letters import letter_of, redriven_headers, settled_by
from pipeline.kafka.desk import DeskDelivery
from pipeline.kafka.records import event_id_in
from pipeline.kafka.redriving import place_of
from pipeline.liveness import Liveness
from pipeline.models.classifier import HeuristicClassifier
from pipeline.settings import Settings, _OurYaml  # pyright: ignore[reportPrivateUsage]
from pipeline.stores.index import VectorIndex
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.stores.replaceable import ReplaceableIndex
from producers.receipts import Receipt
from producers.waiting import Receipts
from producers.watch import Watch
from schemas.search import ANSWERED, Answered, Failed
from tests.builders import DIMENSIONS, MODEL, caches, enriched, vectors_in_memory
from tests.fuzz.mutating import Mutator
from tests.fuzz.stream import quiet_loop
from tests.fuzz.test_stages import INPUTS, SEED, ToyEmbedder
from tests.simulation.network import finished
from tests.unit.schemas.test_events import GOLDEN

QUESTION_ID = UUID(int=7)
CONNECTION = KafkaConnection("nowhere:1")


def asked(*names: str) -> list[dict[str, Any]]:
    """Questions that are still in time, to an answer topic that there is."""
    envelope = {
        "deadline": "2999-01-01T00:00:00Z",
        "reply_to": {"topic": "memory.search.answered", "partition": 0},
    }
    return [GOLDEN[name] | envelope for name in names]


QUESTIONS = asked("SearchAsked", "ReceiptsAsked", "MemoryAsked")
STEPS = [
    question | {"step": step}
    for question in asked("IndexReplaceAsked")
    for step in ("adopt", "switch", "abandon")
]
OPERATORS_QUESTIONS = [*asked("CountsAsked", "FingerprintsAsked", "FingerprintsOfAsked"), *STEPS]
ANSWERS = [
    GOLDEN[name]
    for name in ("SearchAnswered", "ReceiptsAnswered", "MemoryAnswered", "CountsAnswered", "Failed")
]
NOTICES = [GOLDEN[name] for name in ("MemoryStored", "UserErased", "MemorySetAside")]


def record(value: bytes | None, headers: Sequence[tuple[str, Any]] = ()) -> Any:
    return ConsumerRecord("memory.x", 0, 0, 0, 0, b"k", value, None, 0, 0, list(headers))


class Answers:
    """A producer that keeps what the desk answers."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    async def send_and_wait(self, topic: str, value: bytes, **_: Any) -> None:
        self.sent.append((topic, value))


class Home:
    """Keeps indexes in memory, and which names it was asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    async def open(self, name: str) -> VectorIndex:
        self.names.add(name)
        return vectors_in_memory(MODEL, DIMENSIONS)

    async def keep(self, name: str) -> None:
        self.names.add(name)

    async def remove(self, name: str) -> None:
        self.names.add(name)

    async def close(self) -> None:
        """Nothing is open."""


def stores(home: Home) -> tuple[RecordsInMemory, ReplaceableIndex]:
    """Both, with a memory of alice and one of somebody else."""
    records = RecordsInMemory()
    vectors = ReplaceableIndex(home, f"index-{'0' * 32}", vectors_in_memory(MODEL, DIMENSIONS))
    memories = [
        enriched("I love spicy Thai food", user_id="alice", memory_id="thai-food"),
        enriched("the secret", user_id="somebody else", memory_id="thai-food"),
    ]
    for store in (records, vectors):
        finished(store.write(memories))
    return records, vectors


def answers(delivery: DeskDelivery, sent: Answers, questions: Sequence[Any]) -> Iterator[Answered]:
    """What a desk answers to what is left of questions: each time one answer, or none."""
    mutator = Mutator(Random(SEED), questions)
    with asyncio.Runner() as runner:
        for _ in range(INPUTS):
            sent.sent.clear()
            runner.run(delivery.take(record(mutator.one())))
            assert len(sent.sent) <= 1
            for topic, value in sent.sent:
                assert topic == "memory.search.answered"
                assert b"the secret" not in value
                answered = ANSWERED.validate_json(value)
                failed = isinstance(answered, Failed) and "its log says why" in answered.reason
                assert not failed, "a bug in the desk"
                yield answered


def test_a_question_gets_one_answer_or_none_and_nobody_elses_memories() -> None:
    home = Home()
    records, vectors = stores(home)
    producer: Any = Answers()
    desk = query.stage(
        ToyEmbedder(DIMENSIONS),
        HeuristicClassifier(),
        records,
        vectors,
        Weights(),
        caches=caches(),
    )
    delivery = DeskDelivery(desk, producer, "memory")
    everything = [*QUESTIONS, *OPERATORS_QUESTIONS]
    kinds = {answered.type for answered in answers(delivery, producer, everything)}
    # Of everybody nothing is told here, and nothing is switched.
    assert kinds == {"SearchAnswered", "ReceiptsAnswered", "MemoryAnswered", "Failed"}
    assert not home.names


def test_an_operators_question_gets_one_answer_or_none_and_not_a_word_of_a_memory() -> None:
    home = Home()
    records, vectors = stores(home)
    producer: Any = Answers()
    delivery = DeskDelivery(operator_desk.stage(records, vectors, caches()), producer, "memory")
    kinds: set[str] = set()
    for answered in answers(delivery, producer, [*OPERATORS_QUESTIONS, *QUESTIONS]):
        kinds.add(answered.type)
        # What failed may be told with the words of its asker.
        told = "" if isinstance(answered, Failed) else answered.model_dump_json()
        assert not any(word in told for word in ("alice", "spicy"))
    assert kinds == {"CountsAnswered", "FingerprintsAnswered", "IndexReplaceAnswered", "Failed"}
    # Names of folders: nothing leads out of where the indexes are.
    assert home.names
    assert all(re.fullmatch(r"index-[0-9a-f]{32}", name) for name in home.names)


def test_an_answer_is_read_or_told_to_be_unreadable() -> None:
    mutator, random = Mutator(Random(SEED), ANSWERS), Random(SEED)
    with quiet_loop(SEED) as (loop, _):
        asking = Asking(CONNECTION, "memory")
        for _ in range(INPUTS):
            waiting: asyncio.Future[Any] = loop.create_future()
            asking._waiting[QUESTION_ID] = waiting  # pyright: ignore[reportPrivateUsage]
            named = random.choice([str(QUESTION_ID).encode(), random.randbytes(5), None, b""])
            headers = [("correlation_id", named), ("x", None)]
            asking._match(record(mutator.one(), headers))  # pyright: ignore[reportPrivateUsage]
            if waiting.done() and (error := waiting.exception()):
                assert isinstance(error, PipelineError)


def test_a_notice_is_heard_or_passed_over() -> None:
    mutator, random = Mutator(Random(SEED), NOTICES), Random(SEED)
    known = NOTICES[0]
    names = ("user_id", "memory_id", "event_id", "version")
    receipt = Receipt.model_validate({name: known[name] for name in names})
    with quiet_loop(SEED):
        receipts = Receipts(CONNECTION, "memory", Asking(CONNECTION, "memory"))
        watch = Watch(receipt)
        receipts._watched[receipt.event_id].append(watch)  # pyright: ignore[reportPrivateUsage]
        for _ in range(INPUTS):
            named = random.choice([known["event_id"].encode()] * 3 + [random.randbytes(16), None])
            kind = random.choice([b"MemorySetAside", b"MemoryRedriven", b"\xff", None])
            headers = [("event-id", named), ("type", kind)]
            receipts._notice(record(mutator.one(), headers))  # pyright: ignore[reportPrivateUsage]
        assert watch.done.done(), "not one notice was heard"


def test_a_dead_letter_can_be_listed_and_redriven_whatever_its_headers_are() -> None:
    random = Random(SEED)
    names = ["dead-stage", "dead-reason", "dead-topic", "dead-partition", "dead-offset", "dead-at"]
    names += ["event-id", "redriven", "x", "", "dead-", "type"]
    odd = [None, b"", b"\xff\xfe", b"0", b"-1", b"9" * 5_000, "²".encode(), b"1e9", b"nan"]
    odd += [b"9999-12-31T23:59:59.999999-14:00", b"0001-01-01T00:00:00+14:00", b"2026-03-14"]
    odd += [b"memory.events", b"__consumer_offsets", str(QUESTION_ID).encode(), b"\x00"]
    mutator = Mutator(random, [GOLDEN["DeadLetterRedriven"], GOLDEN["DeadLetterDropped"]])
    for _ in range(INPUTS):
        headers = [
            (n, random.choice([*odd, random.randbytes(9)])) for n in random.choices(names, k=6)
        ]
        dead = record(random.choice([None, mutator.one()]), headers)
        dead.timestamp = random.choice([-1, 0, 1_773_480_413_589, 2**62, -(2**62)])
        letter = letter_of(dead)
        assert str(letter.place) == "0/0"
        assert letter.origin
        for name, value in redriven_headers(letter):
            assert isinstance(name, str)
            assert isinstance(value, bytes)
        settled_by(dead)
        event_id_in(dead)


def test_the_place_of_a_dead_letter_is_understood_or_refused() -> None:
    random = Random(SEED)
    for _ in range(INPUTS):
        written = "".join(random.choices("0123456789/²٣- x\x00", k=random.randrange(8)))
        try:
            place = place_of(written)
        except Refused:
            continue
        assert place.partition >= 0
        assert place.offset >= 0


ROWS = [
    {"user": "alice", "text": "I love Thai food", "id": "m1", "date": "1:56 pm on 8 May, 2023"},
    {"user_id": "bob", "text": "x", "run_id": "r", "speaker": "Bob", "metadata": {"a": [1]}},
    {"user": 7, "text": "y", "session": 12, "occurred_at": "2025-01-31T08:20:15", "tag": "t"},
]


def test_a_row_is_a_memory_or_refused() -> None:
    mutator, random = Mutator(Random(SEED), ROWS), Random(SEED)
    taken = 0
    for _ in range(INPUTS):
        line = mutator.one()
        try:
            memory = memory_of(line, user=random.choice([None, "carol"]), overwrite=False)
        except Refused as error:
            str(error).encode()
            continue
        taken += 1
        memory.model_dump_json().encode()
    assert taken > INPUTS / 20


SETTINGS = b"""
kafka_partitions: 6
kafka_password: "secret"
log_level: info
"""
ODD_YAML = (
    *(b"&a [*a]", b"!!python/object:os.system x", b"? ", b"<<: 1", b"- ", b"'", b"\t", b": ", b"{"),
    *(b"\xff", b"\x00", b"0x_", b"2026-13-45", b"1e999", b".nan", b"~", b"|\n", b"*b", b"%"),
)


def test_settings_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random, file = Random(SEED), tmp_path / "hybrid-memory.yaml"
    for number in range(INPUTS):
        torn = bytearray(SETTINGS)
        for _ in range(random.choice([1, 2, 5])):
            place = random.randrange(len(torn))
            torn[place : place + random.choice([0, 1, 9])] = random.choice(
                [*ODD_YAML, random.randbytes(2)]
            )
        file.write_bytes(torn)
        try:
            # The file is what can be odd; all the other sources take milliseconds.
            read_settings() if number % 10 == 0 else _OurYaml(Settings)
        except Refused as error:
            str(error).encode()


async def test_the_health_page_answers_whatever_is_asked() -> None:
    random = Random(SEED)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    async with answering(Liveness(), host="127.0.0.1", port=port):
        await asyncio.gather(*(_ask(port, random, INPUTS // 20) for _ in range(20)))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()


async def _ask(port: int, random: Random, times: int) -> None:
    good = b"GET /ready?a=b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    for _ in range(times):
        torn = bytearray(good)
        for _ in range(random.choice([1, 2, 5])):
            place = random.randrange(len(torn))
            torn[place : place + random.choice([0, 1, 4])] = random.randbytes(random.choice([1, 3]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(torn))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
