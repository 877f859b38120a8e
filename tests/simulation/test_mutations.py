"""A test of the test: take one rule away, and some history must end wrong."""

from collections.abc import Mapping

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import simulate

SEEDS = 400
"""Histories in which a missing rule must show; most show in the first ten."""
SHOWS_IN: Mapping[str, int] = {
    "the_index_looks_for_no_watermark": 11,
    "the_index_does_not_wait_for_its_disk": 52,
    "one_bad_message_takes_its_batch_along": 10,
    "a_forgetting_outlives_what_came_after_it": 11,
    "only_the_first_memories_of_a_forgotten_user_leave_the_log": 144,
    "offsets_are_committed_before_what_follows": 140,
    "what_is_forgotten_is_heard_for_ever": 27,
    "who_leaves_every_conversation_is_heard_for_ever": 27,
    "a_reading_is_on_its_way_before_it_is_acknowledged": 199,
    "a_plain_event_behind_a_reading_of_it_ends_the_log": 344,
    "the_index_overwrites_what_is_newer": 227,
    "the_same_event_takes_back_what_was_heard": 227,
}
"""Where to look first, to save time. The others are looked at where that history is no longer the same."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_simulation_notices_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    with pytest.raises(AssertionError) as caught:
        _simulate_all(SHOWS_IN.get(name, 0))
    assert any("SIMULATION_SEED=" in note for note in caught.value.__notes__)


def test_where_to_look_first_is_said_of_what_is_there() -> None:
    assert SHOWS_IN.keys() <= MUTATIONS.keys()


def _simulate_all(first: int) -> None:
    for seed in range(first, first + SEEDS):
        simulate(seed % SEEDS)
