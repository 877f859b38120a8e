"""Who a memory is: the same for the same names, another for any others."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.identity import content_hash, event_id_of, memory_key, user_key
from tests.builders import captured, enriched

names = st.text(min_size=1, max_size=6)


@given(st.tuples(names, names), st.tuples(names, names))
def test_two_memories_have_one_key_only_if_they_are_one(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert (memory_key(*one) == memory_key(*other)) == (one == other)
    assert (event_id_of(*one) == event_id_of(*other)) == (one == other)


@given(st.tuples(names, names, names | st.none()), st.tuples(names, names, names | st.none()))
def test_one_key_for_two_memories_is_two_events(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None]
) -> None:
    assert (event_id_of(*one) == event_id_of(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", "bc"), ("ab", "c")), (("1:a", "b"), ("1", ":ab")), (("a", "a"), ("A", "a"))],
)
def test_names_that_spell_alike_have_different_keys(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert memory_key(*one) != memory_key(*other)


@given(names, names)
def test_a_user_is_no_memory(user_id: str, memory_id: str) -> None:
    assert user_key(user_id) not in {
        memory_key(user_id, memory_id),
        event_id_of(user_id, memory_id),
    }


def test_keys_stay_the_same_from_release_to_release() -> None:
    assert str(memory_key("alice", "m1")) == "1c86abd5-0927-54d4-b369-fa4e9423b8f6"
    assert str(user_key("alice")) == "cd01511c-56cd-54c9-b636-0fb63d7d8142"
    assert str(event_id_of("alice", "key")) == "a485ab5b-57c5-5875-8a33-d6f698738ee5"
    assert str(event_id_of("alice", "key", "m1")) == "5748ab4e-b9b5-530b-b130-7f26c033eb05"


def test_the_content_hash_is_that_of_what_was_said() -> None:
    said = captured("tea", metadata={"a": [1, 2.5], "b": None})
    stages = enriched(**said.model_dump(exclude={"type"}))
    assert content_hash(said) == content_hash(stages)
    assert len(content_hash(said)) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"text": "coffee"},
        {"speaker": "bob"},
        {"agent_id": "x"},
        {"app_id": "x"},
        {"run_id": "x"},
        {"metadata": {"a": 2}},
        {"metadata": {}},
    ],
)
def test_the_content_hash_differs_when_anything_said_differs(change: dict[str, Any]) -> None:
    said = captured("tea", metadata={"a": 1})
    assert content_hash(said) != content_hash(said.model_copy(update=change))
    later = said.model_copy(update={"occurred_at": said.occurred_at + timedelta(microseconds=1)})
    assert content_hash(said) != content_hash(later)


def test_the_content_hash_does_not_depend_on_the_order_of_keys() -> None:
    one, other = captured(metadata={"a": 1, "b": 2}), captured(metadata={"b": 2, "a": 1})
    same = other.model_copy(update={"occurred_at": one.occurred_at})
    assert content_hash(one) == content_hash(same)
