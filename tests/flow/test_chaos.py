"""The short form of `hybrid-memory chaos`: each kind of fault once, and nothing is lost."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from pipeline.chaos.finding import WORDS
from pipeline.chaos.plan import PART_MANNERS, ROLES

pytestmark = pytest.mark.connected

SEED = 7


@pytest.mark.timeout(600)
async def test_whatever_is_killed_stopped_paused_and_cut_off_nothing_is_lost(
    tmp_path: Path,
) -> None:
    chaos = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.cli", "chaos", "--json"),
        *("--events", "2000", "--brief", "--seed", str(SEED)),
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, told = await chaos.communicate()
    assert chaos.returncode in (0, 1), told.decode()
    report = json.loads(said)
    assert report["ok"], json.dumps(report, indent=1)
    assert {word: report[word] for word in WORDS} == dict.fromkeys(WORDS, 0)
    struck = {strike["fault"] for strike in report["faults"]}
    assert struck >= {f"{role} killed" for role in ROLES} | {"disk full"}
    assert {name.split(" ", 1)[1] for name in struck} >= set(PART_MANNERS)
    assert report["memories"] > 500
    assert report["in_conversations"] > 150
    assert report["recalled"] > 100
    assert report["dead_letters"] > 20
    assert f"--seed {SEED}" in told.decode()
    assert not any(os.scandir(tmp_path)), "a run that found nothing leaves nothing"
