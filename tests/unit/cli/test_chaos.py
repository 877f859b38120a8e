"""chaos: how far a run is, and what is said of one that was interrupted."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pipeline.chaos.report import Moment
from pipeline.cli.chaos import Told
from tests.unit.cli.conftest import Command

MOMENT = Moment(120, 300, "embedder killed", strikes=True, fault=7, faults=29)


def test_a_line_tells_the_fault_and_the_time(capsys: pytest.CaptureFixture[str]):
    Told(300, None)(MOMENT)
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("120 of 300 published, ")
    assert told.endswith(" ms fault 7 of 29: embedder killed")


@pytest.mark.parametrize(
    ("ended", "code"), [(KeyboardInterrupt, 130), (asyncio.CancelledError, 143)]
)
def test_an_interrupted_run_says_where_it_was_and_leaves_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch, ended: type[BaseException], code: int
):
    used: list[Path] = []

    async def run(plan: Any, folder: Path, tell: Told) -> None:
        used.append(folder)
        tell(MOMENT)
        raise ended

    monkeypatch.setattr("pipeline.chaos.run.chaos", run)
    result = command("chaos", "--brief", "--events", "300")
    assert result.exit_code == code
    said = " ".join(result.stderr.split())
    assert "Interrupted after " in said
    assert "at fault 7 of 29: embedder killed." in said
    assert not used[0].exists()
