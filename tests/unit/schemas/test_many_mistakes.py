"""What is wrong a hundred thousand times is refused for its first mistakes: to list them all holds up everybody."""

import json
from typing import Any
from uuid import uuid4

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.domain.telling import MOST_LISTED, told
from schemas.events import CLASSIFIED, LIVED
from schemas.search import ASKED

MANY = 20_000
LEAF = {"speaker": "Ana"}
ENVELOPE: Any = {
    "type": "SearchAsked",
    "question_id": str(uuid4()),
    "asked_at": "2026-05-01T00:00:00Z",
    "deadline": "2026-05-01T00:00:00Z",
    "reply_to": {"topic": "answers", "partition": 0},
    "user_id": "alice",
    "text": "wine",
}
EVENT: Any = {"event_id": str(uuid4()), "user_id": "alice", "memory_id": "m", "version": 1}


def mistakes(adapter: TypeAdapter[Any], given: dict[str, Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        adapter.validate_json(json.dumps(given))
    return caught.value


@pytest.mark.parametrize(
    "wrong",
    [
        {"filter": {"topics": [""] * MANY}},
        {"filter": {"tiers": ["x"] * MANY}},
        {"filter": {"metadata": {str(n): [] for n in range(MANY)}}},
        {"filter": {"where": {str(n): 1 for n in range(MANY)}}},
        {"filter": {"where": {"topics": [""] * MANY}}},
        {"filter": {"where": {"and": [{"or": [{"no": 1}] * 64}] * 64}}},
        {"filter": {"where": {"and": [{"and": [LEAF] * 64}] * 64}}},
        {"filter": {"where": {"metadata": {str(n): {"gt": "x"} for n in range(MANY)}}}},
        {"type": "ReceiptsAsked", "events": [{}] * MANY},
        {"type": "FingerprintsOfAsked", "keys": [""] * MANY},
    ],
)
def test_a_question_is_not_read_beyond_its_first_mistakes(wrong: dict[str, Any]) -> None:
    assert mistakes(ASKED, ENVELOPE | wrong).error_count() < 10


@pytest.mark.parametrize(
    ("adapter", "wrong"),
    [
        (CLASSIFIED, {"type": "MemoryClassified", "topics": [""] * MANY}),
        (CLASSIFIED, {"type": "MemoryClassified", "preceding": [{}] * MANY}),
        (LIVED, {"type": "MemoryConsolidated", "merged": [""] * MANY}),
    ],
)
def test_an_event_is_not_read_beyond_its_first_mistakes(
    adapter: TypeAdapter[Any], wrong: dict[str, Any]
) -> None:
    assert mistakes(adapter, EVENT | wrong).error_count() < 10


def test_of_too_many_mistakes_only_the_number_is_told() -> None:
    error = mistakes(ASKED, ENVELOPE | {"filter": {str(n): 1 for n in range(MOST_LISTED + 1)}})
    assert told(error).endswith("has 1,001 mistakes")
