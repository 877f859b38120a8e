"""What speaks for a memory, weighed together."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.periods import Period
from pipeline.domain.ranking import Candidate, Heard, named, ranked, words_of
from pipeline.domain.tiers import Standing
from pipeline.domain.weights import Weights
from schemas.search import KnownMemory

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
day = datetime.fromisoformat
MAY = Period(day("2025-05-01"), day("2025-06-01"))
QUIET = Heard(frozenset(), (), NOW)


def candidate(memory_id: str, signals: Mapping[Any, float], **fields: Any) -> Candidate:
    known: dict[str, Any] = {"text": memory_id, "occurred_at": NOW, "version": 1, "domain": "other"}
    importance = fields.pop("importance", 0.0)
    whole = KnownMemory(memory_id=memory_id, **(known | fields))
    return Candidate(dict(whole), importance, signals)


def order(*candidates: Candidate, heard: Heard = QUIET, **weights: float) -> list[str]:
    found = ranked(candidates, heard, Weights(**weights), limit=10)
    return [hit.memory_id for hit in found]


def test_each_signal_counts_by_its_weight() -> None:
    by_meaning = candidate("meaning", {"dense": 0.9, "lexical": 0.0})
    by_words = candidate("words", {"dense": 0.1, "lexical": 1.0})
    assert order(by_meaning, by_words, dense=1, lexical=0.2) == ["meaning", "words"]
    assert order(by_meaning, by_words, dense=0.2, lexical=1) == ["words", "meaning"]


def test_equal_scores_come_in_the_order_of_their_ids() -> None:
    assert order(*[candidate(name, {"dense": 0.5}) for name in "bca"]) == ["a", "b", "c"]


def test_whom_the_question_names_is_preferred() -> None:
    said = [candidate(f"by {who}", {"dense": 0.5}, speaker=who) for who in ("Ann", "Bo Li")]
    assert order(*said, heard=Heard(words_of("What did bo say?"), (), NOW))[0] == "by Bo Li"


def test_a_part_of_a_word_names_nobody() -> None:
    assert not named("Ann", words_of("the annual plan"))
    assert not named(None, words_of("anything"))


@pytest.mark.parametrize(
    ("speaker", "question"),
    [
        ("José", "what did Jose\u0301 say?"),
        ("Jose\u0301", "what did José say?"),
        ("Ｂｏｂ", "what did Bob say?"),
        ("王小明", "王小明说了什么?"),
    ],
)
def test_a_name_is_heard_however_it_is_written(speaker: str, question: str) -> None:
    assert named(speaker, words_of(question))


def test_what_happened_when_the_question_says_is_preferred() -> None:
    then = candidate("then", {"dense": 0.5}, occurred_at=datetime(2025, 5, 8, tzinfo=UTC))
    assert order(candidate("now", {"dense": 0.55}), then, heard=Heard((), (MAY,), NOW))[0] == "then"


def test_recency_and_importance_count_where_they_are_wanted() -> None:
    new = candidate("new", {"dense": 0.5})
    old = candidate("old", {"dense": 0.5}, occurred_at=NOW - timedelta(days=365), importance=1.0)
    assert order(old, new, recency=0.1) == ["new", "old"]
    assert order(new, old, importance=0.1) == ["old", "new"]
    assert order(new, old) == ["new", "old"]


def test_a_memory_that_everything_speaks_for_scores_one() -> None:
    best = candidate(
        "best",
        {"dense": 1, "lexical": 1, "tokens": 1},
        speaker="Ann",
        occurred_at=datetime(2025, 5, 8, tzinfo=UTC),
    )
    (hit,) = ranked([best], Heard(words_of("Ann"), (MAY,), NOW), Weights(), limit=1)
    assert hit.score == 1


def test_min_score_leaves_out_what_scores_less() -> None:
    found = [candidate("good", {"dense": 0.9}), candidate("bad", {"dense": 0.1})]
    hits = ranked(found, QUIET, Weights(), limit=10, min_score=0.5)
    assert [hit.memory_id for hit in hits] == ["good"]


def test_of_two_that_answer_alike_the_one_that_was_used_comes_first() -> None:
    stood = Standing("long", 0.9, QUIET.now)
    found = [candidate("a", {"dense": 0.5}), replace(candidate("b", {"dense": 0.5}), stood=stood)]
    weights = replace(Weights(), use=0.02)
    assert [hit.memory_id for hit in ranked(found, QUIET, weights, limit=2)] == ["b", "a"]


def test_signals_are_told_where_they_are_asked_for_with_their_part_of_the_score() -> None:
    found = [candidate("m", {"dense": 0.25, "tokens": 0.5})]
    (plain,) = ranked(found, QUIET, Weights(), limit=1)
    (explained,) = ranked(found, QUIET, Weights(), limit=1, explain=True)
    assert (plain.signals, plain.parts) == ({}, {})
    assert explained.signals == {
        "dense": 0.25,
        "tokens": 0.5,
        "speaker": 0,
        "time": 0,
        "ago": 0,
        "importance": 0,
        "use": 0,
        "recency": 1,
    }
    assert explained.parts == {"dense": 0.125, "tokens": 0.25}
    assert sum(explained.parts.values()) == plain.score


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1)), max_size=20),
    st.integers(1, 30),
)
def test_hits_are_within_the_limit_sorted_and_never_made_up(
    given_: list[tuple[float, float, float]], limit: int
) -> None:
    names = ("dense", "lexical", "tokens")
    found = [
        candidate(str(n), dict(zip(names, signals, strict=True)))
        for n, signals in enumerate(given_)
    ]
    hits = ranked(found, QUIET, Weights(), limit=limit)
    assert len(hits) == min(limit, len(found))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.memory_id for hit in hits}) == len(hits)


@pytest.mark.parametrize(
    "wrong", [{"dense": -0.1}, {"time": float("nan")}, {"half_life_days": 0.0}]
)
def test_a_weight_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Weights(**wrong)
