"""A test of the test: take one rule away, and some history must end wrong."""

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import simulate

SEEDS = 400
"""Histories in which a missing rule must show; most show in the first ten."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_simulation_notices_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    with pytest.raises(AssertionError) as caught:
        _simulate_all()
    assert any("SIMULATION_SEED=" in note for note in caught.value.__notes__)


def _simulate_all() -> None:
    for seed in range(SEEDS):
        simulate(seed)
