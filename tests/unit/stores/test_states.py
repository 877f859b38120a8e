"""What a batch comes to, where `settle` leaves it to the stores."""

import pytest

from pipeline.domain.identity import memory_key
from pipeline.domain.versions import erased
from pipeline.errors import Refused
from pipeline.stores.states import (
    Decided,
    Erased,
    Watermark,
    decide,
    known_of,
    named_user,
    outcome_of,
)
from schemas.events import MemoryEnriched, MemoryForgotten
from tests.builders import enriched, forgotten, named, user_forgotten

KEY = memory_key("alice", "m")
_forgetting = user_forgotten(version=10)
MARK = Watermark(10, _forgetting.event_id, _forgetting.published_at)


def decided(
    *events: MemoryEnriched | MemoryForgotten, holding: MemoryEnriched | None = None
) -> Decided:
    known = {KEY: known_of(holding)} if holding else {}
    return decide(events, known, {"alice": MARK})


def test_what_arrives_after_its_user_was_forgotten_leaves_a_tombstone() -> None:
    came = decided(enriched(memory_id="m", version=9))
    assert came.outcomes == ["forgotten"]
    assert came.writes == {KEY: Erased("alice", "m", MARK)}
    assert known_of(came.writes[KEY]) == erased(10)


def test_the_tombstone_takes_what_the_late_event_would_have_replaced() -> None:
    """As if it had come in time: it would have won, and then have gone with its user."""
    older = enriched(memory_id="m", version=8)
    assert decided(enriched(memory_id="m", version=9), holding=older).writes == {
        KEY: Erased("alice", "m", MARK)
    }
    yielding = enriched(memory_id="m", version=20, if_absent=True)
    assert decided(enriched(memory_id="m", version=9), holding=yielding).writes == {
        KEY: Erased("alice", "m", MARK)
    }


def test_the_tombstone_spares_what_is_newer() -> None:
    newer = enriched(memory_id="m", version=11)
    assert decided(enriched(memory_id="m", version=9), holding=newer).writes == {}
    assert decided(enriched(memory_id="m", version=9), newer).writes == {KEY: newer}
    assert decided(newer, enriched(memory_id="m", version=9)).writes == {KEY: newer}


def test_a_tombstone_is_left_once() -> None:
    late = enriched(memory_id="m", version=9)
    assert decide([late], {KEY: erased(10)}, {"alice": MARK}).writes == {}


def test_other_users_are_not_concerned() -> None:
    his = enriched(memory_id="m", user_id="bob", version=9)
    came = decide([his], {}, {"alice": MARK})
    assert (came.outcomes, list(came.writes.values())) == (["stored"], [his])


def test_an_event_that_was_read_is_done_with_whatever_the_stamps_tell() -> None:
    """A repetition that came first is held; the version of the first compares with nothing."""
    again = enriched(memory_id="m", version=50, if_absent=True)
    first = named(again).model_copy(update={"version": 5})
    assert outcome_of(first, known_of(again), None, was_read=True) == "superseded"
    assert outcome_of(first, known_of(again), None, was_read=False) is None


def test_the_forgetting_of_a_user_is_done_once_its_watermark_is_there() -> None:
    assert outcome_of(named(_forgetting), None, MARK, was_read=False) == "stored"
    assert outcome_of(named(_forgetting), None, None, was_read=False) is None
    later = named(_forgetting).model_copy(update={"version": 11})
    assert outcome_of(later, None, MARK, was_read=False) is None


@pytest.mark.parametrize("nobody", ["", " ", "\u2003\n"])
def test_nobody_is_refused(nobody: str) -> None:
    with pytest.raises(Refused):
        named_user(nobody)
    assert named_user(" alice ") == " alice "


def test_a_forgotten_state_is_known_as_such() -> None:
    assert known_of(forgotten("m", version=3)).forgotten
