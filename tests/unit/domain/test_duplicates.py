"""One memory stands for another only where both say the same."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import duplicates
from pipeline.domain.duplicates import MOST_MERGED, Candidate, Group, says, words_said

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def candidate(memory_id: str, text: str = "I love Thai food", **fields: Any) -> Candidate:
    whose = fields.pop("whose", ("Ana",))
    defaults: dict[str, Any] = {"occurred_at": NOW, "strength": 0.0, "version": 1, "stands_for": 0}
    return Candidate(memory_id, says(text, *whose), **(defaults | fields))


def groups(candidates: Iterable[Candidate], within: timedelta = DAY) -> Sequence[Group]:
    return duplicates.groups(candidates, within=within)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I love spicy Thai food", "I really love spicy thai food!"),
        ("I don't like it.", "I do not like it"),
        ("We’re in the office", "We are in the Office..."),
        ("Meeting at 10:30", "meeting at 10:30!"),
        ("OK, please", "ok please."),
    ],
)
def test_case_punctuation_and_fillers_make_no_difference(one: str, other: str) -> None:
    assert says(one) == says(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I moved to room 12", "I moved to room 13"),
        ("The price is 1.5 million", "The price is 15 million"),
        ("It cost 5 €", "It cost 5 $"),
        ("It is -5 degrees outside", "It is 5 degrees outside"),
        ("Take .5 mg", "Take 5 mg"),
        ("My balance: -$100", "My balance: $100"),
        ("Change of -.5", "Change of .5"),
        ("We meet on Monday", "We meet on Tuesday"),
        ("We meet on 2 May", "We meet on 2 June"),
        ("I like it", "I do not like it"),
        ("I like it", "I never like it"),
        ("I can go", "I can't go"),
        ("Ana told Ben", "Ben told Ana"),
        ("He moved to Paris", "She moved to Paris"),
        ("I work there", "I worked there"),
        ("I won my first tournament", "I won my fourth tournament"),
        ("The flight from Rome to Oslo", "The flight from Oslo to Rome"),
        ("Meeting at 10:30", "Meeting at 10:45"),
        ("明日は会議", "今日は会議"),
        ("Yes", "Hi!"),
        ("Yes", "OK, please"),
        ("Yes", "?!"),
        ("?!", "..."),
    ],
)
def test_what_a_text_turns_on_makes_a_difference(one: str, other: str) -> None:
    assert says(one) != says(other)


def test_no_text_has_no_words() -> None:
    assert words_said("") == ()


def test_only_what_the_same_ones_said_is_compared() -> None:
    assert not groups([candidate("a"), candidate("b", whose=("Ben",))])


def test_what_is_told_again_later_may_have_happened_again() -> None:
    pair = [candidate("a"), candidate("b", occurred_at=NOW + 2 * DAY)]
    assert not groups(pair)
    assert len(groups(pair, within=2 * DAY)) == 1


def test_the_one_that_was_used_stays_else_the_newest() -> None:
    old, new = candidate("old", version=1), candidate("new", version=2)
    used = candidate("used", strength=0.5)
    (group,) = groups([old, used, new])
    assert (group.survivor, group.others) == (used, (new, old))
    (group,) = groups([old, new])
    assert group.survivor == new


def test_who_stands_for_others_is_never_archived_into_another() -> None:
    standing = [candidate("a", stands_for=2), candidate("b", stands_for=1), candidate("c")]
    (group,) = groups(standing)
    assert [each.memory_id for each in group.others] == ["c"]


def test_nobody_stands_for_more_than_an_event_can_name() -> None:
    found = groups([candidate(f"m{n}") for n in range(2 * MOST_MERGED)])
    assert all(len(group.others) <= MOST_MERGED for group in found)


@pytest.mark.parametrize("stands_for", [MOST_MERGED, MOST_MERGED + 5])
def test_who_stands_for_that_many_already_is_given_none(stands_for: int) -> None:
    full = candidate("full", stands_for=stands_for)
    found = groups([full, *(candidate(f"m{n}") for n in range(300))])
    assert full not in [group.survivor for group in found]
    assert all(len(group.others) <= MOST_MERGED for group in found)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 2)), max_size=30)
)
def test_each_memory_stands_or_goes_once(drawn: list[tuple[str, int, int]]) -> None:
    told = [
        candidate(f"m{n}", text, occurred_at=NOW + day * DAY, stands_for=stands)
        for n, (text, day, stands) in enumerate(drawn)
    ]
    found = groups(told)
    survivors = [group.survivor.memory_id for group in found]
    gone = [each.memory_id for group in found for each in group.others]
    assert len({*survivors, *gone}) == len(survivors) + len(gone)
