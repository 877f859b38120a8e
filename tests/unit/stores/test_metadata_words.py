"""Metadata is found by exactly what it says, whatever its keys."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.stores.conditions import holds
from pipeline.stores.metadata_words import metadata_terms
from pipeline.stores.payloads import memory_point
from pipeline.stores.points import IndexShape
from pipeline.stores.scope import searched
from schemas.search import SearchFilter
from tests.builders import DIMENSIONS, MODEL, enriched

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SHAPE = IndexShape(MODEL, DIMENSIONS)
storable = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)


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
