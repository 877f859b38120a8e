"""Whatever a string or a metadata holds, it is refused with a reason or kept exactly."""

import json
import math
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter, ValidationError

from schemas.text import (
    MAX_ID_CHARS,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_TEXT_CHARS,
    Id,
    Metadata,
    Text,
)
from tests.unit.schemas.strange import any_text, nested, not_json, storable_json, storable_text

TEXT: TypeAdapter[str] = TypeAdapter(Text)
ID: TypeAdapter[str] = TypeAdapter(Id)
METADATA: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(Metadata)


def why_not(adapter: TypeAdapter[Any], value: object) -> str:
    """Why `value` is refused; raises anything but a ValidationError."""
    with pytest.raises(ValidationError) as refusal:
        adapter.validate_python(value)
    problems = refusal.value.errors(include_input=False, include_url=False)
    return "; ".join(problem["msg"] for problem in problems).removeprefix("Value error, ")


def kept(adapter: TypeAdapter[Any], value: Any) -> bool:
    """Whether `value` is accepted; if so, exactly as it is, here and after a journey as JSON."""
    try:
        accepted = adapter.validate_python(value)
    except ValidationError:
        return False
    assert accepted == value
    assert adapter.validate_json(adapter.dump_json(accepted)) == value
    return True


# Text and ids


@given(storable_text(max_size=200))
def test_a_text_of_any_script_is_kept(text: str):
    assume(text.strip())
    assert kept(TEXT, text)


@given(any_text(max_size=60))
def test_any_string_is_a_text_or_refused(text: str):
    storable = "\x00" not in text and not re.search("[\ud800-\udfff]", text)
    assert kept(TEXT, text) == (storable and bool(text.strip()))


@given(any_text(max_size=60))
def test_any_string_is_an_id_or_refused(text: str):
    storable = "\x00" not in text and not re.search("[\ud800-\udfff]", text)
    assert kept(ID, text) == (storable and bool(text) and text == text.strip())


@given(any_text(max_size=60))
def test_the_exported_patterns_agree(text: str):
    assume(not re.search("[\ud800-\udfff]", text))
    # Python's $ matches before a line's end too; JSON Schema's does not.
    said, named = (adapter.json_schema()["pattern"].replace("$", r"\Z") for adapter in (TEXT, ID))
    assert bool(re.search(said, text)) == kept(TEXT, text)
    assert bool(re.search(named, text)) == kept(ID, text)


@pytest.mark.parametrize("adapter", [TEXT, ID])
@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, ["a"], b"\xff"])
def test_what_is_no_string_is_refused(adapter: TypeAdapter[str], value: object):
    assert "valid string" in why_not(adapter, value)


def test_a_refusal_says_what_to_do():
    assert why_not(TEXT, "") == "is empty: say what to remember"
    assert why_not(TEXT, " \n\t\u3000") == "is empty: say what to remember"
    assert why_not(TEXT, "a\x00b") == "holds a NUL character, which cannot be stored: remove it"
    assert "unicode" in why_not(TEXT, "a\ud800b")
    assert "at most 16000 characters" in why_not(TEXT, "a" * (MAX_TEXT_CHARS + 1))
    assert why_not(ID, " ") == "is empty"
    assert "white space" in why_not(ID, "alice ")
    assert "at most 256 characters" in why_not(ID, "a" * (MAX_ID_CHARS + 1))


@pytest.mark.parametrize("character", ["a", "ß", "我", "👩🏽‍🚀"[0]])
def test_length_counts_characters_not_bytes(character: str):
    assert kept(TEXT, character * MAX_TEXT_CHARS)
    assert kept(ID, character * MAX_ID_CHARS)


# Metadata


@given(st.dictionaries(storable_text(max_size=10), storable_json(), max_size=4))
def test_metadata_is_kept_exactly(metadata: dict[str, JsonValue]):
    assume(len(METADATA.dump_json(metadata)) <= MAX_METADATA_BYTES)
    assert kept(METADATA, metadata)


@given(st.dictionaries(any_text(max_size=5) | st.integers(), not_json(), max_size=3))
def test_any_object_is_metadata_or_refused(metadata: dict[Any, Any]):
    kept(METADATA, metadata)


@given(st.integers())
def test_an_integer_is_kept_within_64_bits(number: int):
    assert kept(METADATA, {"n": number}) == (-(2**63) <= number < 2**63)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_the_widest_integers_are_kept(number: int):
    assert kept(METADATA, {"n": [number]})


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30, 10**5_000], ids=range(4))
def test_a_wider_integer_is_refused(number: int):
    assert why_not(METADATA, {"n": [number]}) == "holds an integer beyond 64 bits"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_kept_to_the_last_bit(number: float):
    kept_number = METADATA.validate_json(METADATA.dump_json({"n": number}))["n"]
    assert kept_number == number


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (1e16, "10000000000000000"),
        (-0.0, "0.0"),
        (1e15, "1000000000000000.0"),
        (2.0**63, str(2.0**63)),
    ],
)
def test_a_number_is_written_in_one_way(number: float, written: str):
    assert json.dumps(METADATA.validate_python({"n": [number]})) == f'{{"n": [{written}]}}'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float):
    assert why_not(METADATA, {"n": {"m": [number]}}) == "holds a number that is not finite"


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 4_000])
def test_a_number_beyond_bounds_is_refused_in_json_too(written: str):
    with pytest.raises(ValidationError):
        METADATA.validate_json(f'{{"n": {written}}}')


@pytest.mark.parametrize("strange", ["\x00", "\ud800", "a\udfff"])
def test_a_string_that_no_store_keeps_is_refused_anywhere(strange: str):
    for metadata in ({strange: 1}, {"a": strange}, {"a": [{strange: 1}]}, {"a": [[strange]]}):
        assert "remove it" in why_not(METADATA, metadata)


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_depth_has_a_limit(kind: str):
    assert kept(METADATA, {"a": nested(kind, MAX_METADATA_DEPTH - 1)})
    told = why_not(METADATA, {"a": nested(kind, MAX_METADATA_DEPTH)})
    assert told == "is nested deeper than 6 levels"


@pytest.mark.parametrize("kind", ["dict", "list"])
@pytest.mark.parametrize("depth", [100, 1_000, 50_000])
def test_any_depth_is_refused_alike(kind: str, depth: int):
    assert why_not(METADATA, {"a": nested(kind, depth)})


@pytest.mark.parametrize("depth", [100, 1_000, 50_000])
def test_any_depth_is_refused_in_json_too(depth: int):
    with pytest.raises(ValidationError):
        METADATA.validate_json('{"a":' + "[" * depth + "]" * depth + "}")


def test_what_holds_itself_is_refused():
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    assert "cyclic" in why_not(METADATA, metadata)


@pytest.mark.parametrize("character", ["a", "\x01", '"', "é", "👍"])
def test_size_counts_the_bytes_that_travel(character: str):
    width = len(METADATA.dump_json({"k": character})) - len('{"k":""}')
    room = (MAX_METADATA_BYTES - len('{"k":""}')) // width
    assert kept(METADATA, {"k": character * room})
    told = why_not(METADATA, {"k": character * (room + 1)})
    assert told == "is larger than 16384 bytes: keep large content elsewhere"


@pytest.mark.parametrize(
    "metadata",
    [{"k": [0] * 20_000}, {str(n): None for n in range(5_000)}, {"k": [1.1e-300] * 3_000}],
)
def test_many_small_things_are_large_too(metadata: dict[str, Any]):
    assert len(json.dumps(metadata)) > MAX_METADATA_BYTES
    assert "is larger than" in why_not(METADATA, metadata)


def test_what_grows_as_it_is_kept_is_measured_as_it_is_kept():
    assert "is larger than" in why_not(METADATA, {"n": [1e16] * 2_300})
    most = {"n": [1e16] * 900}
    assert kept(METADATA, most)
    assert METADATA.validate_json(METADATA.dump_json(METADATA.validate_python(most)))
