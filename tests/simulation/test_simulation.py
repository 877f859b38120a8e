"""Whatever happens to the stream, both stores end with the greatest version of every memory.

    pytest tests/simulation                                 the histories of the seeds from 0 on
    SIMULATION_RUNS=100000 pytest tests/simulation          more of them
    SIMULATION_FIRST=2000 pytest tests/simulation           others
    SIMULATION_SEED=1234 pytest tests/simulation            the one that failed, as it was

What is simulated and what is not: docs/decisions/0006-simulation.md.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.world import World, simulate

RUNS = int(os.environ.get("SIMULATION_RUNS", "2000"))
FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
ONE = os.environ.get("SIMULATION_SEED")
PARTS = 20
"""Tests that the histories are shared among: each has its own time limit."""
SEEDS = [int(ONE)] if ONE else range(FIRST, FIRST + RUNS)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_history_ends_with_what_was_published(part: int) -> None:
    for seed in SEEDS[part::PARTS]:
        simulate(seed)


def test_a_seed_decides_everything(project: Path) -> None:
    seed = 12
    world = World(seed)
    world.run()
    again = f"from tests.simulation.world import World; w = World({seed}); w.run(); print(w.digest)"
    told = subprocess.run(
        [sys.executable, "-c", again],
        cwd=project,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == world.digest


def test_there_is_weather() -> None:
    """A simulation in which nothing goes wrong would hold nothing."""
    missing = {"is killed", "is paused", "is asked to stop", "loses its power"}
    for seed in range(400):
        told = " ".join(what for _, what in simulate(seed).trace)
        missing = {trouble for trouble in missing if trouble not in told}
        if not missing:
            return
    assert not missing
