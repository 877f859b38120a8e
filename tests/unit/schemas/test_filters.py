"""A filter that cannot be meant is refused where it is wrong, with what there is instead."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.domain.telling import told
from schemas.filters import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES, Where, moment_in

FIELDS = (
    "and, or, not, domain, topics, speaker, agent_id, app_id, run_id, tier, importance, occurred_at, "
    "changed_at, metadata"
)


def nested(depth: int) -> dict[str, Any]:
    return {"speaker": "Ana"} if depth == 1 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, f"filter: is empty: give at least one of {FIELDS}"),
        ({"AND": []}, f"filter: 'AND' is not known here: there are {FIELDS}"),
        ({"or": []}, "filter: 'or' is empty: give at least one, or leave it out"),
        ({"speaker": []}, "filter: 'speaker' is empty: give at least one, or leave it out"),
        ({"not": {}}, "filter: 'not' is empty: give at least one, or leave it out"),
        (
            {"speaker": None},
            "filter: 'speaker' is null: leave it out, or write {\"exists\": false} for what a memory "
            "must not have",
        ),
        (
            {"and": [{"speaker": "Ana"}, {"speaker": {"$in": ["a"]}}]},
            "filter.and.1.speaker: '$in' is not known here: there are eq, ne, in, not_in, exists",
        ),
        ({"domain": ["codng"]}, "filter.domain: must be coding, business or other"),
        ({"speaker": 3}, "filter.speaker.eq: must be text"),
        ({"occurred_at": "2025-01-01"}, "filter.occurred_at: must be an object with named fields"),
        (
            {"occurred_at": {"gte": "May"}},
            "filter.occurred_at.gte: is no time: write it as 2025-01-31, or 2025-01-31T08:20:15+00:00",
        ),
        ({"importance": {"gte": "high"}}, "filter.importance.gte: must be a number"),
        ({"importance": {"gte": 7}}, "filter.importance.gte: must be from 0 to 1"),
        ({"importance": -1}, "filter.importance.eq: must be from 0 to 1"),
        ({"speaker": {"exists": 1}}, "filter.speaker.exists: must be true or false"),
        (
            {"metadata": {"stars": {"exists": "yes"}}},
            "filter.metadata.stars.exists: must be true or false",
        ),
        (
            {"or": [{"tiers": ["long"]}]},
            "filter.or.0: 'tiers' is not known here: write {\"tier\": [...]}",
        ),
        (
            {"metadata": {"stars": {"gte": True}}},
            "filter.metadata.stars.gte: must be a number or a time, as 4.5 or 2025-01-31T08:20:15+00:00",
        ),
        (
            {"metadata": {"day": {"gte": 1, "lt": "2025-01-31"}}},
            "filter.metadata.day: compares with a number and with a time: a value is one of them",
        ),
        ({"metadata": {"x": "a\0"}}, "filter.metadata.x.eq: holds a NUL character"),
        (nested(MAX_DEPTH + 1), f"filter: is nested deeper than {MAX_DEPTH} objects"),
        (nested(500), "is nested deeper than 8 objects"),
        (
            {"or": [{"speaker": "Ana", "run_id": "r"}] * (MAX_CONDITIONS // 3 + 1)},
            f"filter: has more than {MAX_CONDITIONS} conditions",
        ),
        (
            {"speaker": ["Ana"] * (MAX_VALUES + 1)},
            f"filter.speaker.in: has more than {MAX_VALUES} entries",
        ),
    ],
)
def test_it_says_where_it_is_wrong_and_what_there_is(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Where.model_validate(asked)
    assert why[:160] in told(caught.value, "filter")


def test_what_travels_is_read_as_it_was_meant() -> None:
    asked = {
        "or": [{"topics": ["food"]}, {"not": {"metadata": {"stars": {"gte": 4}, "x": True}}}],
        "occurred_at": {"gte": "2025-01-31"},
    }
    where = Where.model_validate(asked)
    assert Where.model_validate_json(where.model_dump_json()) == where
    assert Where.model_validate_json(where.model_dump_json(exclude_none=True)) == where
    assert json.loads(where.model_dump_json()) == {
        "or": [
            {"topics": {"in": ["food"]}},
            {"not": {"metadata": {"stars": {"gte": 4.0}, "x": {"eq": True}}}},
        ],
        "occurred_at": {"gte": "2025-01-31T00:00:00Z"},
    }


def test_what_python_calls_otherwise_is_named_so_too() -> None:
    ana = Where.model_validate({"speaker": "Ana"})
    assert Where(not_=ana) == Where.model_validate({"not": {"speaker": "Ana"}})


@pytest.mark.parametrize(
    "text", ["", "May", "20250131", "2025-W01-1", "2025-02-30", "9999-12-31T23:00:00-05:00", "12"]
)
def test_a_text_that_is_no_time_is_none(text: str) -> None:
    assert moment_in(text) is None


def test_a_time_without_an_offset_is_utc() -> None:
    same = {
        moment_in(text) for text in ("2025-01-31", "2025-01-31T00:00", "2025-01-31T02:00+02:00")
    }
    assert len(same) == 1
