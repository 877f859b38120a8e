"""A fresh index is filled from the record, or from the log in whatever order compaction left it."""

from collections.abc import AsyncGenerator, Mapping, Sequence

import numpy as np
import pytest
from aiokafka import ConsumerRecord, TopicPartition

from pipeline.errors import Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.records import Record, value_of
from pipeline.kafka.replaying import Batch
from pipeline.stores.memory import RecordsInMemory, vectors_in_memory
from pipeline.verifying import filling as module
from pipeline.verifying.filling import Filling
from schemas.events import (
    Classified,
    Enriched,
    MemoryClassified,
    MemoryEnriched,
    MemoryState,
    Published,
)
from tests.builders import DIMENSIONS, MODEL, enriched, forgotten, user_forgotten

TP = TopicPartition("memory.enriched", 0)


async def understand(events: Sequence[Published]) -> Sequence[Classified]:
    return [
        e.becomes(MemoryClassified, {"domain": "other", "topics": ("food",), "importance": 0.5})
        if isinstance(e, MemoryState)
        else e
        for e in events
    ]


async def embed(events: Sequence[Classified]) -> Sequence[Enriched]:
    return [
        enriched(**{name: getattr(e, name) for name in type(e).model_fields if name != "type"})
        if isinstance(e, MemoryClassified)
        else e
        for e in events
    ]


class Log:
    """memory.enriched with one partition, which may grow while it is read."""

    def __init__(self, *events: Enriched | bytes) -> None:
        self.values = [e if isinstance(e, bytes) else value_of(e) for e in events]
        self.grows_by: list[Enriched] = []

    async def replayed(
        self, _: KafkaConnection, __: str, *, since: Mapping[TopicPartition, int]
    ) -> AsyncGenerator[Batch]:
        begin, end = since.get(TP, 0), len(self.values)
        records = [_record(n, self.values[n]) for n in range(begin, end)]
        self.values += map(value_of, self.grows_by)
        yield Batch(records, 1.0, {TP: end})


def _record(offset: int, value: bytes) -> Record:
    return ConsumerRecord("memory.enriched", 0, offset, 0, 0, None, value, None, 0, len(value), ())


@pytest.fixture
def filling(monkeypatch: pytest.MonkeyPatch) -> Filling:
    return Filling(
        fresh=vectors_in_memory(MODEL, DIMENSIONS),
        model=MODEL,
        connection=KafkaConnection("nowhere:9092"),
        topic="memory.enriched",
        understand=understand,
        embed=embed,
    )


def read_from(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "replayed", log.replayed)


def unseen(fraction: float, seen: int) -> None:
    assert 0 <= fraction <= 1


HISTORY: list[Enriched] = [
    *(enriched(f"memory {n}", memory_id=f"m{n}", run_id="r") for n in range(600)),
    forgotten("m7"),
    enriched("first said", memory_id="once", if_absent=True),
    enriched(user_id="carol", version=5),
    user_forgotten("carol", version=7),
]


async def test_an_index_from_the_record_holds_what_the_record_holds(filling: Filling) -> None:
    records = RecordsInMemory()
    await records.write(HISTORY)
    await filling.from_record(records, unseen)
    assert await filling.fresh.page(None, 10_000) == await records.page(None, 10_000)


async def test_an_index_from_the_log_holds_the_greatest_versions(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = RecordsInMemory()
    await records.write(HISTORY)
    read_from(Log(*reversed(HISTORY), b"no event"), monkeypatch)
    await filling.from_log(unseen)
    assert await filling.fresh.page(None, 10_000) == await records.page(None, 10_000)
    assert filling.unusable == 1


async def test_vectors_of_another_model_are_made_anew(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = enriched("Thai food", memory_id="m", model="another", vector=np.ones(3))
    read_from(Log(enriched(), other, forgotten("gone")), monkeypatch)
    await filling.from_log(unseen)
    assert (await filling.fresh.count(), filling.unusable) == (2, 0)


async def test_what_does_not_fit_is_left_out_and_its_neighbours_are_not(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = enriched(vector=np.ones(3))
    read_from(Log(enriched(), bad, enriched()), monkeypatch)
    await filling.from_log(unseen)
    assert (await filling.fresh.count(), filling.unusable) == (2, 1)


async def test_what_came_meanwhile_is_read_from_where_the_log_was_left(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(enriched(), enriched())
    read_from(log, monkeypatch)
    await filling.from_log(unseen)
    log.values += [value_of(enriched()) for _ in range(3)]
    await filling.catch_up()
    assert (filling.written, filling.at[TP], await filling.fresh.count()) == (5, 5, 5)


async def test_a_log_that_grows_faster_than_it_is_read_ends_the_rebuild(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_LAG", 1)
    log = Log(enriched(), enriched())
    log.grows_by = [enriched(), enriched()]
    read_from(log, monkeypatch)
    with pytest.raises(Unavailable, match="grows faster"):
        await filling.catch_up()


def test_a_memory_is_no_less_itself_for_being_embedded_anew() -> None:
    memory = enriched("Thai food", run_id="r", metadata={"a": 1}, if_absent=True)
    again = module.classified(memory)
    assert isinstance(memory, MemoryEnriched)
    assert {n: getattr(again, n) for n in MemoryClassified.model_fields if n != "type"} == {
        n: getattr(memory, n) for n in MemoryClassified.model_fields if n != "type"
    }
