"""A memory in words: what was said, by whom, on which day."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from pipeline.domain.wording import day_in_words, worded, worded_for_terms
from schemas.events import MemoryCaptured, Said


def memory(text: str, *, at: datetime, speaker: str | None = None) -> MemoryCaptured:
    return MemoryCaptured(
        event_id=UUID(int=1),
        user_id="alice",
        memory_id="m1",
        version=1,
        published_at=at,
        occurred_at=at,
        text=text,
        speaker=speaker,
        preceding=(Said(text="And what did you do?"),),
    )


NOON = datetime(2023, 5, 8, 12, 0, tzinfo=UTC)


def test_a_memory_is_worded_with_its_day_and_its_speaker():
    assert worded(memory("I went to the lake.", at=NOON, speaker="Caroline")) == (
        "(8 May 2023) Caroline: I went to the lake."
    )


def test_a_memory_of_nobody_is_worded_with_its_day_alone():
    assert worded(memory("The lake is cold.", at=NOON)) == "(8 May 2023) The lake is cold."


def test_terms_come_from_the_weekday_too():
    told = memory("I swam.", at=NOON, speaker="Ana")
    assert worded_for_terms(told) == "Monday (8 May 2023) Ana: I swam."
    assert worded_for_terms(Said(text="I swam.")) == "I swam."


def test_what_was_said_before_is_not_worded_in():
    told = memory("I swam.", at=NOON)
    assert "what did you do" not in worded(told) + worded_for_terms(told)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(text="I swam."), "I swam."),
        (Said(text="I swam.", speaker="Ana"), "Ana: I swam."),
        (Said(text="I swam.", speaker="Ana", occurred_at=NOON), "(8 May 2023) Ana: I swam."),
    ],
)
def test_what_was_said_before_is_worded_as_far_as_it_is_known(said: Said, words: str):
    assert worded(said) == words


def test_midnight_is_a_day_like_any_moment_of_it():
    midnight = NOON.replace(hour=0)
    assert day_in_words(midnight) == day_in_words(midnight + timedelta(hours=23, minutes=59))


def test_a_moment_is_worded_in_its_own_time_zone():
    late_in_lima = datetime(2026, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert day_in_words(late_in_lima) == "31 December 2026"
    # An event keeps UTC: there it is already the new year.
    assert day_in_words(memory("Cheers!", at=late_in_lima).occurred_at) == "1 January 2027"


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "1 January 1"),
        (datetime(2024, 2, 29, tzinfo=UTC), "29 February 2024"),
        (datetime(9999, 12, 31, tzinfo=UTC), "31 December 9999"),
    ],
)
def test_the_calendar_is_worded_from_end_to_end(moment: datetime, words: str):
    assert day_in_words(moment) == words


def test_any_script_stays_as_it_was_said():
    told = memory("明日は図書館へ行く 📚", at=NOON, speaker="さくら")
    assert worded(told) == "(8 May 2023) さくら: 明日は図書館へ行く 📚"
