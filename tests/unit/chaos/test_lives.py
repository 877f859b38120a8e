"""The checker of lives: what it says of honest stores, and of what recalls and tiers can suffer."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.chaos.lives import Recall, Standing, Use, unlived

NAME = ("ana", "m1")
GONE = ("ana", "m2")
STANDS = Standing(7, 0.5, datetime(2026, 1, 1, tzinfo=UTC), None, None, None)
HONEST = Use(
    in_record={NAME: STANDS},
    in_index={NAME: STANDS},
    hours={NAME: {490_000}},
    recalls=[Recall(NAME, 490_000, told_at_ms=2_000)],
    stored_at_ms={NAME: 1_000},
)
WANTED: dict[tuple[str, str], str | None] = {NAME: "content", GONE: None}


def words(use: Use) -> list[tuple[str, str]]:
    return [(found.word, found.where) for found in unlived(use, WANTED)]


def test_where_all_recalls_count_and_both_stores_tell_the_same_nothing_is_found() -> None:
    assert words(HONEST) == []


@pytest.mark.parametrize(
    ("word", "doctored"),
    [
        (("lost", "record"), {"hours": {NAME: {489_999}}}),
        (("stale", "index"), {"in_index": {}}),
        (("stale", "index"), {"in_record": {}}),
        (("stale", "index"), {"in_index": {NAME: replace(STANDS, life=6)}}),
        (("stale", "index"), {"in_index": {NAME: replace(STANDS, archived_version=3)}}),
        (("resurrected", "record"), {"in_record": {NAME: STANDS, GONE: STANDS}}),
        (("resurrected", "index"), {"in_index": {NAME: STANDS, GONE: STANDS}}),
    ],
)
def test_what_went_wrong_is_found_out_with_the_right_word(
    word: tuple[str, str], doctored: dict[str, Any]
) -> None:
    assert words(replace(HONEST, **doctored)) == [word]


def test_a_recall_that_was_quicker_than_the_record_may_be_missed() -> None:
    early = Recall(NAME, 490_001, told_at_ms=999)
    assert words(replace(HONEST, recalls=[early])) == []


def test_a_recall_of_what_was_forgotten_counts_nowhere() -> None:
    gone = Recall(GONE, 490_000, told_at_ms=2_000)
    assert words(replace(HONEST, recalls=[gone], stored_at_ms={GONE: 1_000})) == []
