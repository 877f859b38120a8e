"""What the retrieval benchmark counts."""

from datetime import UTC, datetime

import pytest

from benchmarks.retrieval import Asked, Question, metrics, repeated
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
