"""What is wrong is told in one line that can be kept anywhere."""

import pytest
from pydantic import ValidationError

from pipeline.domain.telling import told
from producers.client import NewMemory
from schemas.search import SearchFilter


def wrong(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        NewMemory.model_validate({"text": "x", "user_id": "alice"} | fields)
    return told(caught.value)


def test_it_names_the_field_and_the_remedy() -> None:
    assert wrong(text="") == "text: is empty: say what to remember"


def test_it_does_not_repeat_what_was_said() -> None:
    assert "secret" not in wrong(text="my secret\x00")


def test_a_key_of_somebody_elses_is_cut_and_made_storable() -> None:
    line = wrong(**{"k" * 5_000: 1, "\ud800": 1})
    assert len(line) < 1_000
    line.encode()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"topics": "food"}, "filter.topics: must be a list"),
        (
            {"metadata": {"price": 3.5}},
            "filter.metadata.price: must be text, a whole number or true or false",
        ),
        (
            {"occurred_from": "2025-01-31T08:20:15"},
            "filter.occurred_from: has no time zone: write it as 2025-01-31T08:20:15+00:00",
        ),
        ({"domain": "art"}, "filter.domain: must be 'coding', 'business' or 'other'"),
        ({"topic": "food"}, "filter.topic: is no field that is known here"),
        ({"topics": ["food"] * 33}, "filter.topics: has more than 32 entries"),
        ("food", "filter: must be an object with named fields"),
    ],
)
def test_it_speaks_to_those_who_do_not_know_pydantic(fields: object, line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SearchFilter.model_validate(fields)
    assert told(caught.value, "filter") == line


def test_two_wrong_values_are_two_problems() -> None:
    with pytest.raises(ValidationError) as caught:
        SearchFilter.model_validate({"metadata": {"a": 1.5, "b": None}})
    assert [line.split(":")[0] for line in told(caught.value).split("; ")] == [
        "metadata.a",
        "metadata.b",
    ]
