"""The examples are what their README says."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pipeline.models.classifier import HeuristicClassifier
from schemas.events import MemoryCaptured
from schemas.search import SearchFilter

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMED = {"user_id", "id", "text", "date", "speaker", "run_id"}

Row = dict[str, Any]


def rows(name: str) -> Sequence[Row]:
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


MEMORIES = rows("memories.jsonl")
QUESTIONS = rows("questions.jsonl")
STORY: dict[str, Row] = json.loads((EXAMPLES / "story.json").read_text(encoding="utf-8"))
BY_ID = {(row["user_id"], row["id"]): row for row in MEMORIES}


def captured(row: Row) -> MemoryCaptured:
    moment = datetime.fromisoformat(row["date"])
    return MemoryCaptured(
        event_id=UUID(int=1),
        user_id=row["user_id"],
        memory_id=row["id"],
        version=1,
        published_at=moment,
        text=row["text"],
        occurred_at=moment,
        speaker=row.get("speaker"),
        run_id=row.get("run_id"),
        metadata={key: value for key, value in row.items() if key not in NAMED},
    )


def passes(narrow: SearchFilter, memory: MemoryCaptured) -> bool:
    (found,) = HeuristicClassifier().classify([memory.text])
    return all(
        [
            narrow.domain in (None, found.domain),
            not narrow.topics or set(narrow.topics) & set(found.topics),
            narrow.occurred_from is None or narrow.occurred_from <= memory.occurred_at,
            narrow.occurred_until is None or memory.occurred_at < narrow.occurred_until,
            narrow.speaker in (None, memory.speaker),
            narrow.run_id in (None, memory.run_id),
            narrow.metadata.items() <= memory.metadata.items(),
        ]
    )


def test_every_memory_can_be_captured():
    assert [captured(row).memory_id for row in MEMORIES] == [row["id"] for row in MEMORIES]


def test_there_are_some_two_hundred_memories_of_three_people():
    assert 190 <= len(MEMORIES) <= 230
    assert {row["user_id"] for row in MEMORIES} == {"tomasz", "amara", "linh"}


def test_no_id_and_no_text_is_there_twice():
    assert len(BY_ID) == len(MEMORIES)
    assert len({row["text"] for row in MEMORIES}) == len(MEMORIES)


def test_memories_stand_oldest_first_over_about_half_a_year():
    moments = [datetime.fromisoformat(row["date"]) for row in MEMORIES]
    assert moments == sorted(moments)
    assert 150 <= (moments[-1] - moments[0]).days <= 200


def test_every_day_is_the_same_day_in_utc():
    for row in MEMORIES:
        moment = datetime.fromisoformat(row["date"])
        assert moment.utcoffset() is not None, row["id"]
        assert moment.astimezone(UTC).date() == moment.date(), row["id"]


def test_the_lines_of_a_conversation_have_speakers_and_follow_each_other():
    for run in {row["run_id"] for row in MEMORIES if "run_id" in row}:
        places = [place for place, row in enumerate(MEMORIES) if row.get("run_id") == run]
        lines = [MEMORIES[place] for place in places]
        assert places == list(range(places[0], places[0] + len(places)))
        assert len({line["speaker"] for line in lines}) >= 2
        assert len({line["user_id"] for line in lines}) == 1


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["text"])
def test_a_question_expects_memories_that_are_there_and_pass_its_filter(question: Row):
    narrow = SearchFilter.model_validate(question.get("filter", {}))
    assert 1 <= len(question["expect"]) <= 3
    for name in question["expect"]:
        assert passes(narrow, captured(BY_ID[question["user_id"], name])), name


def test_everybody_asks_something():
    assert {question["user_id"] for question in QUESTIONS} == {"tomasz", "amara", "linh"}


def test_the_revision_and_the_forgetting_make_a_difference():
    revise, forget = STORY["revise"], STORY["forget"]
    revised, forgotten = (BY_ID[part["user_id"], part["id"]] for part in (revise, forget))
    assert revise["says_before"] in revised["text"]
    assert revise["says_before"] not in revise["text"]
    assert revise["says_after"] in revise["text"]
    telling = [row["id"] for row in MEMORIES if forget["says_before"] in row["text"]]
    assert telling == [forgotten["id"]]


def test_the_story_disturbs_no_question():
    touched = {part["id"] for part in STORY.values()}
    assert not any(touched & set(question["expect"]) for question in QUESTIONS)
