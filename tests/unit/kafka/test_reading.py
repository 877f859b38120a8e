"""What nobody uses is told apart in one place: what is no event, and what a clock days ahead has said."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import ConsumerRecord
from pydantic import TypeAdapter

from pipeline.errors import Unusable
from pipeline.kafka.reading import enriched_of, event_of
from pipeline.kafka.records import Record, value_of
from schemas.events import ENRICHED, LIVED, MAX_VERSION, Event, MemoryTiered
from tests.builders import (
    archived,
    consolidated,
    enriched,
    forgotten,
    recalled,
    restored,
    tiered,
    user_forgotten,
)

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=3)
TIERED = TypeAdapter(MemoryTiered)


def record_of(value: bytes | None, at_ms: int | None = None) -> Record:
    now_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    return ConsumerRecord("memory", 0, 0, now_ms, 0, None, value, None, 0, 1, ())


@pytest.mark.parametrize(
    ("event", "adapter"),
    [
        (enriched(), ENRICHED),
        (forgotten("m"), ENRICHED),
        (user_forgotten(), ENRICHED),
        (recalled("m", at=NOW), LIVED),
        (archived("m", of_version=1), LIVED),
        (archived("m"), LIVED),
        (restored("m"), LIVED),
        (consolidated("m", "n"), LIVED),
        # Until when it is of long term, unused, is a moment to come.
        (tiered("m", archived_version=1, long_until=LATER), TIERED),
        (tiered("m", archived_version=1, archived_precedence=-1), TIERED),
    ],
)
def test_what_was_said_in_time_is_used(event: Event, adapter: TypeAdapter[Event]) -> None:
    assert event_of(record_of(value_of(event)), adapter.validate_json) == event


@pytest.mark.parametrize(
    ("event", "adapter"),
    [
        (enriched(version=MAX_VERSION), ENRICHED),
        (enriched(context=MAX_VERSION), ENRICHED),
        (user_forgotten(version=MAX_VERSION), ENRICHED),
        (archived("m", version=MAX_VERSION), LIVED),
        (archived("m", of_version=MAX_VERSION), LIVED),
        (restored("m", published_at=LATER), LIVED),
        (recalled("m", at=NOW).model_copy(update={"at": LATER}), LIVED),
        (tiered("m", archived_version=MAX_VERSION), TIERED),
        (tiered("m", archived_version=1, archived_precedence=MAX_VERSION), TIERED),
    ],
)
def test_nothing_orders_states_by_a_clock_that_is_days_ahead(
    event: Event, adapter: TypeAdapter[Event]
) -> None:
    with pytest.raises(Unusable, match="days ahead"):
        event_of(record_of(value_of(event)), adapter.validate_json)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"no event"])
def test_what_is_no_event_is_not_used(value: bytes | None) -> None:
    with pytest.raises(Unusable):
        event_of(record_of(value), ENRICHED.validate_json)
    assert enriched_of(record_of(value)) is None


def test_what_has_no_time_is_not_used() -> None:
    assert enriched_of(record_of(value_of(enriched()), at_ms=-1)) is None
