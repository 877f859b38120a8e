"""What the log holds and the record lacks is told of, and given to whoever mends it."""

import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.publishing import Outgoing, Publishing
from pipeline.kafka.records import Record, value_of
from pipeline.kafka.replaying import Batch
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.verifying import logged
from pipeline.verifying.comparing import Kind
from pipeline.verifying.repairing import Mending
from pipeline.verifying.verifying import Report
from schemas.events import Enriched
from tests.builders import enriched, forgotten

NOW_MS = time.time_ns() // 1_000_000
WEEK = 7 * 86_400_000_000


def record_of(offset: int, value: bytes) -> Record:
    told = (None, value, None, 0, len(value), ())
    return ConsumerRecord("memory.enriched", 0, offset, NOW_MS, 0, *told)


class Read:
    """Readers that have read all there is."""

    async def caught_up(self) -> bool:
        return True


def unseen(fraction: float, seen: int) -> None: ...


async def lost(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch, *log: Enriched | bytes
) -> tuple[dict[Kind, int], list[int]]:
    """What is said to differ, by kind, and the offsets of what would be published again."""
    values = [value_of(each) if not isinstance(each, bytes) else each for each in log]
    taken: list[int] = []

    async def replayed(*_: object, **__: object) -> AsyncGenerator[Batch]:
        yield Batch([record_of(n, value) for n, value in enumerate(values)], 1.0, {})

    async def take(lacking: Sequence[Record]) -> None:
        taken.extend(record.offset for record in lacking)

    monkeypatch.setattr(logged, "replayed", replayed)
    report, nowhere = Report(keep=9), KafkaConnection("nowhere:1")
    await logged.compare_log(
        nowhere,
        "memory.enriched",
        records,
        Read(),
        report,
        take=take,
        on_progress=unseen,
    )
    return dict(report.counts), taken


async def test_what_the_record_lacks_is_told_and_given(monkeypatch: pytest.MonkeyPatch) -> None:
    held, old, new = enriched(), enriched("old", memory_id="m"), enriched("new", memory_id="m")
    records = RecordsInMemory()
    await records.write([held])
    kinds = {"missing_in_record_but_in_log": 1}
    assert await lost(records, monkeypatch, held, old, new) == (kinds, [2])


@pytest.mark.parametrize("ahead", ["version", "context"])
async def test_what_the_stages_set_aside_for_its_clock_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, ahead: str
) -> None:
    said = enriched("the secret", memory_id="m")
    gone = forgotten("m")
    records = RecordsInMemory()
    await records.write([said, gone])
    of_next_week = said.model_copy(update={ahead: said.version + WEEK})
    assert await lost(records, monkeypatch, said, of_next_week, gone) == ({}, [])


async def test_what_the_stages_set_aside_for_its_vectors_hides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, later = enriched(memory_id="m"), json.loads(value_of(enriched(memory_id="m")))
    later["text_vector"]["shape"] = [7, 7]
    kinds = {"missing_in_record_but_in_log": 1}
    broken = json.dumps(later).encode()
    assert await lost(RecordsInMemory(), monkeypatch, said, broken) == (kinds, [0])
    assert await lost(RecordsInMemory(), monkeypatch, broken) == ({}, [])


async def test_what_the_stages_set_aside_is_not_published_under_a_new_time() -> None:
    said, sent = enriched(), list[bytes | None]()

    class Kept(Publishing):
        async def send(self, records: Sequence[Outgoing]) -> None:
            sent.extend(each.value for each in records)

    ahead = said.model_copy(update={"version": said.version + WEEK})
    values = [value_of(said), value_of(ahead), b"no event"]
    nobody: Any = None
    mending = Mending(RecordsInMemory(), Kept(nobody, nobody, "memory"), nobody, "memory", 1)
    await mending.from_log([record_of(n, value) for n, value in enumerate(values)])
    assert (sent, mending.published) == (values[:1], 1)
