"""A fresh index is filled from the record, or from the log in whatever order compaction left it."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from aiokafka import ConsumerRecord, TopicPartition

from pipeline.domain.identity import memory_key
from pipeline.domain.tiers import Tiers
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.records import Record, key_of, value_of
from pipeline.kafka.replaying import Batch
from pipeline.ports import Fingerprint
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.verifying import filling as module
from pipeline.verifying.comparing import tier_differences
from pipeline.verifying.filling import Filling
from schemas.events import (
    Classified,
    Enriched,
    MemoryClassified,
    MemoryEnriched,
    MemoryState,
    Published,
)
from schemas.search import SearchFilter
from tests.builders import (
    DIMENSIONS,
    MODEL,
    enriched,
    forgotten,
    question,
    recalled,
    user_forgotten,
    vectors_in_memory,
)

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
    now_ms = time.time_ns() // 1_000_000
    told = (None, value, None, 0, len(value), ())
    return ConsumerRecord("memory.enriched", 0, offset, now_ms, 0, *told)


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


@pytest.mark.parametrize("source", ["log", "record"])
@pytest.mark.parametrize("with_user", [True, False])
async def test_a_life_of_before_its_forgetting_comes_to_no_memory_of_a_fresh_index(
    filling: Filling, monkeypatch: pytest.MonkeyPatch, source: str, with_user: bool
) -> None:
    """The tier writer may be behind a rebuild, and neither states nor a compacted log tell of a forgetting."""
    records = RecordsInMemory()
    anew, gone = enriched("anew", memory_id="m", version=7), forgotten("m", version=6)
    await records.write([enriched(memory_id="m", version=5)])
    (told,) = await records.live([recalled("m", at=datetime.now(UTC))], Tiers())
    assert told is not None
    await records.write([user_forgotten(version=6) if with_user else gone, anew])
    read_from(Log(anew), monkeypatch)
    await filling.from_forgettings(records)
    if source == "log":
        await filling.from_log(unseen)
    else:
        await filling.from_record(records, unseen)
    await filling.agree(records, unseen)
    await filling.fresh.tier([told])
    assert await filling.fresh.page(None, 9) == await records.page(None, 9)
    assert not tier_differences(await records.page(None, 9), await filling.fresh.page(None, 9))


@pytest.mark.parametrize("ahead", ["version", "context"])
async def test_what_the_stages_set_aside_for_its_clock_does_not_come_back_with_a_rebuild(
    filling: Filling, monkeypatch: pytest.MonkeyPatch, ahead: str
) -> None:
    said = enriched("the secret", memory_id="m")
    of_next_week = said.model_copy(update={ahead: said.version + 7 * 86_400_000_000})
    events = [said, forgotten("m"), enriched(memory_id="kept")]
    records = RecordsInMemory()
    await records.write(events)
    await rebuilt(filling, monkeypatch, Log(of_next_week, *events), records)
    assert (await found(filling)).keys() == {"kept"}
    assert await filling.fresh.page(None, 100) == await records.page(None, 100)
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


# What the log does not tell any more


def compacted(events: Sequence[Enriched]) -> Sequence[Enriched]:
    """The last record of each key, whatever its version: what Kafka's cleaner leaves."""
    last = {key_of(event): number for number, event in enumerate(events)}
    return [event for number, event in enumerate(events) if number in set(last.values())]


async def rebuilt(
    filling: Filling, monkeypatch: pytest.MonkeyPatch, log: Log, records: RecordsInMemory
) -> None:
    read_from(log, monkeypatch)
    await filling.from_log(unseen)
    await filling.agree(records, unseen)


async def found(filling: Filling, user_id: str = "alice") -> dict[str, str]:
    hits = await filling.fresh.search(
        user_id, question(), filter=SearchFilter(), limit=100, min_score=None
    )
    return {hit.memory_id: hit.text for hit in hits}


async def test_what_was_forgotten_stays_so_though_the_log_has_forgotten_that(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = enriched("the secret", memory_id="m", if_absent=True)
    again = said.model_copy(update={"version": said.version + 9})
    events = [enriched(memory_id="kept"), said, forgotten("m"), again]
    records = RecordsInMemory()
    await records.write(events)
    log = Log(*compacted(events))
    assert len(log.values) == 2
    await rebuilt(filling, monkeypatch, log, records)
    assert (await found(filling)).keys() == {"kept"}
    assert await filling.fresh.page(None, 100) == await records.page(None, 100)
    assert (filling.mended, filling.unusable) == (1, 0)


async def test_an_older_text_does_not_come_back_with_a_redriven_event(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = enriched("old", memory_id="m"), enriched("new", memory_id="m")
    events = [old, new, old]
    records = RecordsInMemory()
    await records.write(events)
    await rebuilt(filling, monkeypatch, Log(*compacted(events)), records)
    assert await found(filling) == {"m": "new"}


async def test_a_user_stays_forgotten_up_to_the_latest_forgetting(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, memory, second = user_forgotten(), enriched(memory_id="m"), user_forgotten()
    later = enriched("said since", memory_id="later")
    # The first forgetting is redriven, and replaces the second in the log.
    events = [first, memory, second, later, first]
    records = RecordsInMemory()
    await records.write(events)
    log = Log(*compacted(events))
    assert len(log.values) == 3
    await rebuilt(filling, monkeypatch, log, records)
    assert await found(filling) == {"later": "said since"}
    assert await filling.fresh.page(None, 100) == await records.page(None, 100)


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_compaction_leaves_the_fresh_index_agrees_with_the_record(
    filling: Filling, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)

    def one(version: int) -> Enriched:
        fields: dict[str, Any] = {"user_id": random.choice(["alice", "bob"]), "version": version}
        memory_id = f"m{random.randrange(4)}"
        match random.randrange(5):
            case 0:
                return user_forgotten(**fields)
            case 1:
                return forgotten(memory_id, **fields)
            case 2:
                return enriched(f"{version}", memory_id=memory_id, if_absent=True, **fields)
            case _:
                return enriched(f"{version}", memory_id=memory_id, **fields)

    events = [one(version) for version in range(1, 25)]
    events += random.choices(events, k=8)
    random.shuffle(events)
    records = RecordsInMemory()
    await records.write(events)
    cleaned = random.randrange(len(events) + 1)
    monkeypatch.setattr(module, "STATES", random.choice([1, 3, 256]))
    log = Log(*compacted(events[:cleaned]), *events[cleaned:])
    await rebuilt(filling, monkeypatch, log, records)
    assert await filling.fresh.page(None, 1_000) == await records.page(None, 1_000)


async def test_what_is_only_on_its_way_is_not_embedded_again(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = enriched("late", memory_id="m")
    log = Log(enriched(memory_id="other"))

    class Busy(RecordsInMemory):
        """A record that hears of something while it is compared."""

        async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
            if len(log.values) == 1:
                log.values.append(value_of(late))
                await self.write([late])
            return await super().page(after, limit)

    await rebuilt(filling, monkeypatch, log, Busy())
    assert (await found(filling))["m"] == "late"
    assert filling.mended == 0


async def test_what_the_log_tells_and_the_record_lacks_is_left(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = RecordsInMemory()
    old, new = enriched("old", memory_id="m"), enriched("new", memory_id="m")
    await records.write([old])
    await rebuilt(filling, monkeypatch, Log(enriched("b", memory_id="b"), new), records)
    assert await found(filling) == {"b": "b", "m": "new"}


def without_vectors(text: str) -> Any:
    async def embedding(events: Sequence[Classified]) -> Sequence[Enriched]:
        if any(isinstance(e, MemoryClassified) and e.text == text for e in events):
            raise Unusable("no finite vector")
        return await embed(events)

    return embedding


async def test_a_fresh_index_that_would_show_an_older_text_is_refused(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [enriched("old", memory_id="m"), enriched("new", memory_id="m")]
    records = RecordsInMemory()
    await records.write(events)
    filling.embed = without_vectors("new")
    with pytest.raises(Refused, match=str(memory_key("alice", "m"))):
        await rebuilt(filling, monkeypatch, Log(events[0]), records)


async def test_a_text_without_vectors_is_left_out_and_its_neighbours_are_not(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = RecordsInMemory()
    await records.write([enriched(f"memory {n}", memory_id=f"m{n}") for n in range(9)])
    filling.embed = without_vectors("memory 5")
    await rebuilt(filling, monkeypatch, Log(), records)
    assert (await filling.fresh.count(), filling.unusable) == (8, 1)
