"""Whatever arrives on a topic, it is a message that travels on unchanged, or a ValueError."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import TypeAdapter, ValidationError

from pipeline.domain.telling import told
from pipeline.kafka.records import headers_of, key_of, value_of
from schemas.events import (
    CLASSIFIED,
    ENRICHED,
    MAX_VERSION,
    PUBLISHED,
    STORED,
    MemoryCaptured,
    MemoryEnriched,
    Message,
    Said,
    SparseVector,
    Utc,
    Vectors,
)
from schemas.search import ANSWERED, ASKED, SearchFilter
from tests.builders import captured
from tests.unit.schemas.strange import any_text, storable_json, storable_text

GOLDEN: Mapping[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "golden_messages.json").read_text("utf-8")
)
READERS: Mapping[str, TypeAdapter[Any]] = {
    "published": PUBLISHED,
    "classified": CLASSIFIED,
    "enriched": ENRICHED,
    "stored": STORED,
    "asked": ASKED,
    "answered": ANSWERED,
}
each_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
UTC_TIME: TypeAdapter[datetime] = TypeAdapter(Utc)


def travels(reader: TypeAdapter[Any], value: bytes) -> bool:
    """Whether `value` is a message; if so, it goes on unchanged, with its key and its headers."""
    try:
        message: Message = reader.validate_json(value)
    except ValueError as error:
        told(error).encode()
        return False
    key_of(message)
    headers_of(message)
    assert reader.validate_json(value_of(message)) == message
    return True


def paths(part: Any, *before: str | int) -> list[tuple[str | int, ...]]:
    """The way to every value within a message."""
    items: Any = {}
    match part:
        case dict():
            items = part.items()
        case list():
            items = enumerate(part)
        case _:
            pass
    return [before, *(path for key, value in items for path in paths(value, *before, key))]


def replaced(part: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    copy = part.copy()
    copy[path[0]] = replaced(part[path[0]], path[1:], value)
    return copy


PLACES = [(name, path) for name, message in GOLDEN.items() for path in paths(message)]
WRITTEN = [
    "NaN",
    "Infinity",
    "-1e999",
    "1e999",
    "1.5",
    "-0.0",
    "9" * 30,
    "9" * 5_000,
    "-1",
    "0",
    '"\\u0000"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '" "',
    '""',
    '"' + "x" * 20_000 + '"',
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    "[" * 50_000 + "]" * 50_000,
    '{"a":' * 200 + "1" + "}" * 200,
    '"0001-01-01T00:00:00+14:00"',
    '"9999-12-31T23:59:59.999999-14:00"',
    '"2026-03-14T09:26:53"',
    '"2026-03-14T09:26:60Z"',
    "1e300",
    "1e-300",
    '"AAAA"',
    '"@@@@"',
]
"""JSON that is written, and sometimes read, in a way of its own."""


@pytest.mark.parametrize("written", WRITTEN, ids=lambda written: written[:24])
def test_anything_in_any_place_travels_or_is_refused(written: str):
    for name, path in PLACES:
        message = json.dumps(replaced(GOLDEN[name], path, "HERE")).replace('"HERE"', written)
        for reader in READERS.values():
            travels(reader, message.encode())


@settings(max_examples=300)
@given(st.sampled_from(PLACES), storable_json())
def test_any_json_in_any_place_travels_or_is_refused(
    place: tuple[str, tuple[str | int, ...]], value: Any
):
    message = json.dumps(replaced(GOLDEN[place[0]], place[1], value)).encode()
    for reader in READERS.values():
        travels(reader, message)


@each_reader
@given(value=st.binary(max_size=200))
def test_any_bytes_travel_or_are_refused(reader: TypeAdapter[Any], value: bytes):
    travels(reader, value)


@each_reader
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":{}}',
        b'{"type":"Else"}',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_message_is_refused(reader: TypeAdapter[Any], value: bytes):
    assert not travels(reader, value)


def test_a_surrogate_in_raw_bytes_is_refused():
    value = value_of(captured("before HERE after")).replace(b"HERE", b"\xed\xa0\x80")
    assert not travels(PUBLISHED, value)


def states() -> SearchStrategy[MemoryCaptured]:
    """Every kind of state that can be published."""
    ids = storable_text(max_size=20).map(str.strip).filter(bool)
    said = storable_text(max_size=50).filter(str.strip)
    moments = st.datetimes(timezones=st.just(UTC))
    before = st.builds(Said, text=said, speaker=st.none() | ids, occurred_at=st.none() | moments)
    return st.builds(
        MemoryCaptured,
        event_id=st.uuids(),
        user_id=ids,
        memory_id=ids,
        version=st.integers(1, MAX_VERSION),
        published_at=moments,
        hops=st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9_]{0,8}\Z"), moments, max_size=2),
        text=said,
        occurred_at=moments,
        speaker=st.none() | ids,
        agent_id=st.none() | ids,
        app_id=st.none() | ids,
        run_id=st.none() | ids,
        metadata=st.dictionaries(storable_text(max_size=5), storable_json(), max_size=3),
        preceding=st.lists(before, max_size=2).map(tuple),
        if_absent=st.booleans(),
    )


@given(states())
def test_a_captured_memory_travels_unchanged(event: MemoryCaptured):
    assert PUBLISHED.validate_json(value_of(event)) == event


@given(any_text(max_size=30), any_text(max_size=10))
def test_a_publisher_is_told_or_heard(text: str, name: str):
    try:
        event = captured(text, user_id=name, metadata={name: text})
    except ValidationError:
        return
    assert PUBLISHED.validate_json(value_of(event)) == event


@given(
    st.datetimes(),
    st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m))),
)
def test_a_moment_is_kept_in_utc_or_refused(moment: datetime, zone: timezone):
    local = moment.replace(tzinfo=zone)
    try:
        kept = UTC_TIME.validate_python(local)
    except ValidationError:
        assert moment.year in (1, 9999)
        return
    assert kept == local
    assert kept.tzinfo is UTC
    assert UTC_TIME.validate_json(UTC_TIME.dump_json(kept)) == local


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"])
def test_a_moment_beyond_the_calendar_is_refused(written: str):
    with pytest.raises(ValidationError, match="years 1 to 9999"):
        UTC_TIME.validate_python(written)


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ValidationError, match="timezone"):
        UTC_TIME.validate_python("2026-03-14T09:26:53")


@given(st.binary(max_size=64), st.sampled_from(["float32", "float16"]))
def test_vectors_travel_bit_by_bit(data: bytes, dtype: str):
    width = 4 if dtype == "float32" else 2
    whole = data[: len(data) // width * width]
    sent = Vectors.model_validate(
        {"dtype": dtype, "shape": (1, len(whole) // width), "data": whole}
    )
    assert Vectors.model_validate_json(sent.model_dump_json()) == sent


@pytest.mark.parametrize("shape", [(1, 2), (-1, -1), (2, 1), (0, 5), (2**70, 2**70), (-1, 0)])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, int]):
    with pytest.raises(ValidationError, match="bytes are not"):
        Vectors(dtype="float32", shape=shape, data=b"\0" * 4)


@pytest.mark.parametrize(
    ("indices", "values"),
    [
        ((1,), ()),
        ((-1,), (1.0,)),
        ((2**32,), (1.0,)),
        ((1,), (float("nan"),)),
        ((1,), (float("inf"),)),
    ],
)
def test_terms_that_no_index_takes_are_refused(indices: tuple[int, ...], values: tuple[float, ...]):
    with pytest.raises(ValidationError):
        SparseVector(indices=indices, values=values)


@pytest.mark.parametrize("topics", [("a\x00",), ("",), ("x" * 300,), (1,)])
def test_topics_that_no_store_takes_are_refused(topics: tuple[Any, ...]):
    message = {**GOLDEN["MemoryEnriched"], "topics": topics}
    with pytest.raises(ValidationError, match=r"topics\.0"):
        MemoryEnriched.model_validate_json(json.dumps(message))


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": "\ud800"},
        {"\ud800": "a"},
        {"a": "\x00"},
        {"a": 2**63},
        {"a": 1.5},
        {"a": None},
        {str(n): n for n in range(17)},
        {"a": "x" * 20_000},
    ],
)
def test_a_filter_that_no_store_takes_is_refused(metadata: dict[str, Any]):
    with pytest.raises(ValidationError, match="metadata"):
        SearchFilter(metadata=metadata)


@given(
    st.dictionaries(
        storable_text(10),
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | storable_text(10),
        max_size=5,
    )
)
def test_a_filter_keeps_its_values_and_their_types(metadata: dict[str, str | int | bool]):
    sent = SearchFilter(metadata=metadata)
    read = SearchFilter.model_validate_json(sent.model_dump_json())
    assert read == sent
    assert {k: type(v) for k, v in read.metadata.items()} == {
        k: type(v) for k, v in metadata.items()
    }


def test_a_filter_with_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        SearchFilter.model_validate({"user_id": "bob"})


def test_an_event_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        captured().user_id = "mallory"


def test_an_event_id_is_a_uuid():
    with pytest.raises(ValidationError, match="event_id"):
        captured(event_id="mine")
    assert captured(event_id=str(UUID(int=7))).event_id == UUID(int=7)
