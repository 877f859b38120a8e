"""The checker of conversations: what it says of honest stores, and of a notice that nobody took up."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from pipeline.chaos.conversations import Reading, Talk, Turn, unheard
from pipeline.domain.identity import context_hash
from schemas.events import Said

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def turn(number: int, *, run_id: str = "talk", after: int) -> Turn:
    """The turn of that number, which has heard two before it and `after` behind it."""
    before = [said(n) for n in range(max(0, number - 2), number)]
    heard = context_hash(before, [said(number + n + 1) for n in range(after)])
    return Turn(("ana", f"m{number}"), run_id, said(number), number, uuid4(), heard, number + 1)


def said(number: int) -> Said:
    at = BEGAN + timedelta(seconds=number)
    return Said(text=f"Turn {number}.", speaker="Ana", occurred_at=at)


def talk(turns: Sequence[Turn]) -> Talk:
    """What is read where the index has made the same of it as the record."""
    readings: dict[Reading, set[str]] = {(t.event_id, t.context): {t.heard or ""} for t in turns}
    return Talk(turns, {t.name: t.context for t in turns}, readings)


WHOLE = [turn(0, after=2), turn(1, after=2), turn(2, after=1), turn(3, after=0)]


def found(talk: Talk) -> set[tuple[str, str, str]]:
    return {(f.word, f.where, f.what.split()[1]) for f in unheard(talk)}


def test_where_all_have_heard_what_is_beside_them_nothing_is_found() -> None:
    assert found(talk(WHOLE)) == set()
    assert found(talk(list(reversed(WHOLE)))) == set()


def test_a_memory_that_was_not_enriched_by_what_follows_is_stale() -> None:
    late = talk([WHOLE[0], turn(1, after=1), *WHOLE[2:]])
    assert found(late) == {("stale", "record", "m1"), ("stale", "index", "m1")}


def test_a_memory_that_still_hears_what_was_forgotten_is_stale() -> None:
    left = talk(WHOLE[:3])
    assert {name for _, _, name in found(left)} == {"m1", "m2"}


def test_an_index_that_has_an_older_reading_than_the_record_is_stale() -> None:
    honest = talk(WHOLE)
    behind = replace(honest, in_index={**honest.in_index, ("ana", "m2"): 0})
    assert found(behind) == {("stale", "index", "m2")}


def test_vectors_that_were_made_with_other_texts_than_the_record_says_are_stale() -> None:
    honest = talk(WHOLE)
    place = (WHOLE[2].event_id, WHOLE[2].context)
    other = replace(honest, readings={**honest.readings, place: {context_hash([], [])}})
    assert found(other) == {("stale", "index", "m2")}


def test_conversations_hear_nothing_of_each_other() -> None:
    alone = replace(WHOLE[0], name=("ana", "other"), run_id="alone", heard=context_hash([], []))
    bobs = replace(WHOLE[0], name=("bob", "his"), heard=context_hash([], []), event_id=uuid4())
    alone = replace(alone, event_id=uuid4())
    assert found(talk([*WHOLE, alone, bobs])) == set()
