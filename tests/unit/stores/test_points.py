"""No condition reaches beyond one user, and none means anything but what it says."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.domain.identity import memory_key
from pipeline.errors import Refused
from pipeline.stores.conditions import (
    Condition,
    Every,
    HasId,
    Is,
    Not,
    OneHas,
    Some,
    holds,
    metadata_terms,
    without,
)
from pipeline.stores.points import (
    INDEXED,
    MEMORY,
    IndexShape,
    counted,
    erased_by,
    memory_point,
    replaceable,
    rounded,
    searched,
)
from schemas.filters import Where
from schemas.search import SearchFilter
from tests.builders import DIMENSIONS, MODEL, enriched, user_forgotten

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SHAPE = IndexShape(MODEL, DIMENSIONS)

storable = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
filters = st.builds(
    SearchFilter,
    domain=st.sampled_from([None, "coding"]),
    topics=st.sampled_from([(), ("a",)]),
    occurred_from=st.sampled_from([None, "2026-05-01T12:00:00Z"]),
    speaker=st.sampled_from([None, "bob"]),
    metadata=st.dictionaries(storable, st.integers(-9, 9) | st.booleans() | storable, max_size=3),
)


@given(filters)
def test_every_search_is_within_one_user(filter: SearchFilter) -> None:
    where = searched("alice", filter, NOW)
    assert where.conditions[0] == Every((Is("user_id", "alice"), Is("kind", MEMORY)))


@pytest.mark.parametrize("nobody", ["", "  "])
def test_no_condition_is_built_without_a_user(nobody: str) -> None:
    for build in (
        lambda: searched(nobody, SearchFilter(speaker="bob"), NOW),
        lambda: counted(nobody),
        lambda: erased_by(user_forgotten().model_copy(update={"user_id": nobody})),
    ):
        with pytest.raises(Refused):
            build()


def test_whatever_a_filter_names_has_an_index() -> None:
    everything = SearchFilter(
        domain="coding",
        topics=("a",),
        occurred_from="2026-05-01T12:00:00Z",  # type: ignore[arg-type]
        speaker="s",
        agent_id="a",
        app_id="p",
        run_id="r",
        tiers=("short", "long"),
        metadata={"k": 1},
    )
    asked: list[Condition] = [
        searched("alice", everything, NOW),
        *(searched("alice", SearchFilter(where=where), NOW) for where in _each_field_of_a_filter()),
        erased_by(user_forgotten()),
        replaceable([memory_point(enriched(), SHAPE)]),
    ]
    assert {field for condition in asked for field in _fields(condition)} == INDEXED.keys()


def _each_field_of_a_filter() -> Iterator[Where]:
    for name in Where.model_fields.keys() - {"and_", "or_", "not_", "metadata"}:
        with suppress(ValidationError):
            yield Where.model_validate({name: "coding"})
        with suppress(ValidationError):
            yield Where.model_validate({name: {"gt": 0.5}})
        with suppress(ValidationError):
            yield Where.model_validate({name: {"gt": "2026-05-01"}})
    yield Where.model_validate({"metadata": {"k": {"gt": 1}}})


def _fields(condition: Condition) -> Iterator[str]:
    match condition:
        case Every(conditions) | Some(conditions):
            for each in conditions:
                yield from _fields(each)
        case Not(opposite):
            yield from _fields(opposite)
        case OneHas(field, conditions):
            for each in conditions:
                yield from (f"{field}[].{inner}" for inner in _fields(each))
        case HasId():
            return
        case _:
            yield condition.field


@given(
    st.dictionaries(storable, st.sampled_from(["x", 1, True, 1.5, None]), max_size=3),
    storable,
    st.sampled_from(["x", 1, True]),
)
def test_metadata_is_found_by_exactly_what_it_says(
    metadata: dict[str, Any], key: str, value: str | int | bool
) -> None:
    there = memory_point(enriched(metadata=metadata), SHAPE)
    asked = searched("alice", SearchFilter(metadata={key: value}), NOW)
    said = key in metadata and metadata[key] == value and type(metadata[key]) is type(value)
    assert holds(asked, there.id, there.payload) == said


def test_a_list_is_found_by_each_of_its_values_once() -> None:
    assert metadata_terms({"a": ["x", "y", "x", None, {}]}) == metadata_terms({"a": ["x", "y"]})
    assert metadata_terms({"a": "x", "b": "y"}) != metadata_terms({"a": "y", "b": "x"})


def test_scores_agree_where_float32_does() -> None:
    assert rounded(0.99999994) == rounded(1.0000001) == 1.0
    assert rounded(-1.0000002) == -1.0
    assert rounded(0.1234561) == rounded(0.1234559)


_leaves = st.builds(Is, st.sampled_from(["speaker", "domain", "topics"]), st.sampled_from("ab"))
_conditions = st.recursive(
    _leaves,
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, max_size=3).map(lambda some: Every(tuple(some)))
        | st.lists(inner, max_size=3).map(lambda some: Some(tuple(some)))
    ),
    max_leaves=8,
)
_payloads = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from("ab") for name in ("speaker", "domain", "topics")}
)


@given(_conditions, _payloads)
def test_asking_nothing_of_some_fields_leaves_out_nothing_that_fits(
    condition: Condition, payload: dict[str, str]
) -> None:
    key = memory_key("alice", "m")
    less = without(condition, ["domain", "topics"])
    known = {name: value for name, value in payload.items() if name == "speaker"}
    assert holds(less, key, known) or not holds(condition, key, payload)
    assert without(condition, ()) == condition
    assert holds(less, key, known) == holds(less, key, payload)


def test_what_is_asked_of_other_fields_is_still_asked() -> None:
    asked = Every((Is("domain", "coding"), Is("speaker", "Ana"), Not(Is("topics", "food"))))
    assert without(asked, ["domain", "topics"]) == Every(
        (Every(()), Is("speaker", "Ana"), Not(Some(())))
    )
