"""What the retrieval benchmark reads and counts, and what a reranker is taught by."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.dataset import Question, memories, questions
from benchmarks.reranker_training import AGAINST, ANSWERS, lessons_of, split
from benchmarks.retrieval import Asked, ablations, metrics, repeated
from pipeline.domain.ranking import SIGNALS
from schemas.search import Hit


def question(*gold: str, category: str = "who") -> Question:
    return Question("alice", "?", frozenset(gold), category)


def hit(text: str) -> Hit:
    now = datetime(2026, 3, 14, tzinfo=UTC)
    return Hit(memory_id=text, text=text, occurred_at=now, version=1, domain="other", score=0.5)


def test_recall_is_the_share_of_the_gold_and_the_first_of_it_gives_the_reciprocal_rank() -> None:
    told = metrics([(question("a", "b"), ["x", "a", "y", "z", "v", "b"])])["all"]
    assert [told[f"recall@{k}"]["mean"] for k in (1, 5, 10, 20)] == [0, 0.5, 1, 1]
    assert told["mrr"]["mean"] == 0.5


def test_each_category_is_told_by_itself_and_those_that_ask_about_another_apart() -> None:
    told = metrics(
        [
            (question("a"), ["a"]),
            (question("a", category="when"), ["b"]),
            (question("a", category="adversarial"), ["a"]),
        ]
    )
    assert {name: group["questions"] for name, group in told.items()} == {
        "all": 3,
        "all but adversarial": 2,
        "adversarial": 1,
        "when": 1,
        "who": 1,
    }
    assert told["all but adversarial"]["recall@1"]["mean"] == 0.5


def test_the_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few = [(question("a"), ["a"]), (question("a"), ["b"])] * 5
    spread: list[float] = []
    for ranks in (few, few * 20):
        told = metrics(ranks)["all"]["recall@1"]
        assert told["low"] <= told["mean"] <= told["high"]
        spread.append(told["high"] - told["low"])
    assert spread[1] < spread[0] / 2


def test_what_a_better_hit_says_already_is_counted() -> None:
    hits = [hit("the train leaves at nine"), hit("bring tea"), hit("a train leaves at nine")]
    assert repeated(Asked(question("a"), hits)) == pytest.approx(1)


@pytest.mark.parametrize("other", [name for name in SIGNALS if name != "dense"])
def test_of_one_signal_alone_no_other_speaks_for_a_hit(other: str) -> None:
    near = hit("near").model_copy(update={"signals": {"dense": 0.9}})
    far = hit("far").model_copy(update={"signals": {"dense": 0.1, other: 1.0}})
    ((_, ids),) = ablations([Asked(question("near"), [far, near])])["dense alone"]
    assert ids == ["near", "far"]


def written(folder: Path, *, memories: list[Any], queries: list[Any]) -> Path:
    for name, rows in (("memories", memories), ("queries", queries)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def test_what_is_said_in_a_session_follows_what_was_said_before_it(tmp_path: Path) -> None:
    said = [{"user": "alice", "session": 1, "text": text} for text in ("When?", "On Monday.")]
    said.append({"user": "alice", "text": "look", "image_caption": "a cat"})
    when, monday, look = memories(written(tmp_path, memories=said, queries=[]))
    assert [before.text for before in monday.preceding] == [when.text]
    assert look.text == "look [shares photo: a cat]"


@pytest.mark.parametrize(
    ("row", "told"),
    [("{", "line 2: .*JSON"), ({"text": "x"}, "line 2: no .user"), ([1], "line 2")],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: Any, told: str) -> None:
    data = written(tmp_path, memories=[{"user": "alice", "text": "tea"}, row], queries=[])
    with pytest.raises(SystemExit, match=told):
        memories(data)
    with pytest.raises(SystemExit, match="no question with gold"):
        questions(data)


def test_half_of_the_users_teach_and_the_others_questions_are_held_out(tmp_path: Path) -> None:
    rows = [{"user": user, "text": "?", "gold": ["m"]} for user in "abca"]
    data = written(tmp_path, memories=[], queries=rows)
    assert split(data, tmp_path / "out") == {"a", "c"}
    assert [one.user for one in questions(tmp_path / "out")] == ["b"]
    with pytest.raises(SystemExit, match="nothing would be left"):
        split(written(tmp_path, memories=[], queries=rows[:1]), tmp_path / "out")


def test_an_answer_is_taught_against_what_was_ranked_high_and_does_not_answer() -> None:
    hits = [hit(str(i)) for i in range(20)]
    taught = lessons_of(Asked(question("3", "7", "not found"), hits), random.Random(0))
    assert {lesson.answer[-1] for lesson in taught} == {"3", "7"}
    assert all(len(lesson.others) == 18 for lesson in taught)
    assert not lessons_of(Asked(question("0"), hits[:AGAINST]), random.Random(0))
    assert not lessons_of(Asked(question("3", category="adversarial"), hits), random.Random(0))
    many = question(*map(str, range(10)))
    assert len(lessons_of(Asked(many, hits), random.Random(0))) == ANSWERS
