"""Why Mem0 cannot be looked at is what its poller said last, and nothing that has passed."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.cli.mem0_trouble import Trouble, trouble, trouble_of
from pipeline.embedded.state import PartState, Stack

AT = "2026-01-31T12:00:0{}Z"
NO_ANSWER = (
    f"{AT} [warning  ] {{}}    reason='Mem0 at h does not answer: all is\\nin vain.' pause_s=1.5"
)
CYCLE = f"{AT.format(2)} [info     ] 1 user: 3 added, 0 updated, 0 deleted, 0 errors took_s=0.1"
VAIN = "Mem0 at h does not answer: all is in vain"


@pytest.mark.parametrize("event", ["waiting for Mem0", "the cycle is tried again"])
@pytest.mark.parametrize("after", [[], ["what a library says"]])
def test_the_last_failure_is_told(event: str, after: list[str]):
    lines = [CYCLE, NO_ANSWER.format(3, event), *after]
    assert trouble_of(lines) == Trouble(datetime(2026, 1, 31, 12, 0, 3, tzinfo=UTC), VAIN)


@pytest.mark.parametrize("lines", [[], [CYCLE], [NO_ANSWER.format(1, "waiting for Mem0"), CYCLE]])
def test_what_has_passed_is_none(lines: list[str]):
    assert trouble_of(lines) is None


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"mem0": PartState(os.getpid())}, True),
        ({"mem0": PartState(None)}, False),
        ({}, False),
    ],
)
def test_it_is_told_of_a_poller_that_runs(tmp_path: Path, parts: dict[str, PartState], told: bool):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mem0.log").write_text(NO_ANSWER.format(1, "waiting for Mem0"))
    stack = Stack(tmp_path, 1, 0.0, "k:1", "", "", tmp_path, parts)
    assert (trouble(stack) is not None) == told
    assert trouble(None) is None
