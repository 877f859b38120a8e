"""Keeping processes alive and ending them, on processes that do nothing else."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path

import psutil
import pytest

from pipeline.embedded.crew import bound_logs
from pipeline.embedded.guard import MARK, end_leftovers, leftovers
from pipeline.embedded.keeper import Keeper, Phase, growing
from pipeline.embedded.process import Command, leashed, marked, run_to_end
from pipeline.errors import Unavailable

SLEEP = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "
GUARD = Path(sys.modules[leftovers.__module__].__file__ or "")


class Kept:
    """A keeper with what it told."""

    def __init__(self, folder: Path, code: str, attempts: int, stop_timeout_s: float) -> None:
        self.told: list[tuple[Phase, str]] = []
        self.log = folder / "logs" / "it.log"
        argv = [sys.executable, "-c", code]
        command = Command(
            argv, cwd=folder, log=self.log, env=marked(folder), stop_timeout_s=stop_timeout_s
        )
        self.answers = True
        self.bug: Exception | None = None
        self.keeper = Keeper(
            "it",
            command,
            tell=lambda phase, detail: self.told.append((phase, detail)),
            ready=self._ready,
            pauses_s=(0.01, 0.02),
            attempts=attempts,
            patience_s=0.5,
        )

    async def _ready(self) -> bool:
        if self.bug:
            raise self.bug
        return self.answers

    @property
    def phases(self) -> list[Phase]:
        return [phase for phase, _ in self.told]


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def make(code: str, *, attempts: int = 3, stop_timeout_s: float = 20.0) -> Kept:
        made.append(Kept(tmp_path, code, attempts, stop_timeout_s))
        made[-1].keeper.start()
        return made[-1]

    yield make
    for one in made:
        one.keeper.kill()
        await one.keeper.stop()


async def test_a_process_that_dies_is_started_again(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    await kept.keeper.first_ready()
    first = kept.keeper.pid
    assert first

    os.kill(first, signal.SIGKILL)

    await eventually(lambda: kept.phases.count("ready") == 2)
    assert ("died", "killed by SIGKILL; starts again in 0.01 s") in kept.told
    assert kept.keeper.pid not in (None, first)


async def test_one_that_never_starts_is_given_up_with_the_end_of_its_log(
    keep: Callable[..., Kept],
) -> None:
    kept = keep("raise SystemExit('no such model')", attempts=2)
    kept.answers = False

    with pytest.raises(Unavailable, match="no such model"):
        await kept.keeper.first_ready()
    assert kept.phases.count("starting") == 2


async def test_one_that_never_answers_is_killed(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    kept.answers = False

    with pytest.raises(Unavailable, match=r"no answer for 0\.5 s"):
        await kept.keeper.first_ready()
    await eventually(lambda: kept.keeper.pid is None)


async def test_a_bug_in_the_probe_reaches_whoever_waits(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    kept.bug = ZeroDivisionError()

    with pytest.raises(ZeroDivisionError):
        await kept.keeper.first_ready()


async def test_one_that_is_misconfigured_is_not_started_again(keep: Callable[..., Kept]) -> None:
    kept = keep("import time; time.sleep(0.3); raise SystemExit(78)")
    await kept.keeper.first_ready()

    await eventually(lambda: "refused" in kept.phases)

    assert kept.phases.count("starting") == 1


async def test_one_that_is_misconfigured_says_why_this_time(keep: Callable[..., Kept]) -> None:
    line = "2026-01-31T12:00:00Z [critical ] cannot run    reason='{} of 9 are gone' stages=['it']"
    kept = keep(f"print({line.format(7)!r}); print('closed'); raise SystemExit(78)")
    kept.log.parent.mkdir(exist_ok=True)
    kept.log.write_text(f"{line.format(3)}\n")

    await eventually(lambda: kept.keeper.halted != "")

    assert kept.keeper.halted == "7 of 9 are gone"
    assert ("refused", f"7 of 9 are gone\nIts log is {kept.log}") in kept.told


async def test_the_end_of_a_log_is_that_of_this_start(keep: Callable[..., Kept]) -> None:
    kept = keep("print('this time'); raise SystemExit(78)")
    kept.log.parent.mkdir(exist_ok=True)
    kept.log.write_text("the time before\n")

    await eventually(lambda: "refused" in kept.phases)

    assert kept.told[-1][1].endswith(f"The end of {kept.log}:\nthis time")


async def test_one_that_ends_by_itself_without_an_error_is_started_again(
    keep: Callable[..., Kept],
) -> None:
    kept = keep("")

    await eventually(lambda: kept.phases.count("starting") > 3)

    assert ("died", "ended with exit code 0; starts again in 0.02 s") in kept.told


async def test_stopping_returns_when_the_process_is_gone(keep: Callable[..., Kept]) -> None:
    kept = keep(SLEEP)
    await kept.keeper.first_ready()
    process = psutil.Process(kept.keeper.pid)

    await kept.keeper.stop()

    assert not process.is_running()
    assert kept.told[-2:] == [("stopping", ""), ("stopped", "")]


async def test_one_that_does_not_listen_is_killed_with_its_children(
    keep: Callable[..., Kept],
) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"
    kept = keep(DEAF + child, stop_timeout_s=0.3)
    await kept.keeper.first_ready()
    await eventually(lambda: kept.log.read_text() == "deaf\n")
    parent = psutil.Process(kept.keeper.pid)
    await eventually(lambda: len(parent.children()) == 1)
    family = [parent, *parent.children()]

    await kept.keeper.stop()

    assert kept.told[-1] == ("stopped", "killed after 0.3 s")
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


async def test_stopping_during_a_pause_does_not_start_it_again(keep: Callable[..., Kept]) -> None:
    kept = keep("raise SystemExit(1)", attempts=1000)
    await eventually(lambda: "died" in kept.phases)

    await kept.keeper.stop()

    begun = kept.phases.count("starting")
    await asyncio.sleep(0.1)
    assert kept.phases.count("starting") == begun


async def test_a_preparation_that_fails_says_why(tmp_path: Path) -> None:
    code = "import sys; sys.exit(f'cannot read {input()}')"
    failing = Command([sys.executable, "-c", code], cwd=tmp_path, log=tmp_path / "it.log")

    with pytest.raises(Unavailable, match="cannot read this"):
        await run_to_end(failing, "this\n")


def test_pauses_double_up_to_the_longest() -> None:
    assert list(islice(growing(0.5, 3.0), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part of the leash")
def test_a_leashed_process_ends_with_its_parent_whatever_kills_that(tmp_path: Path) -> None:
    argv = leashed([sys.executable, "-c", SLEEP], stop_signal=signal.SIGTERM)
    parent_code = (
        "import os, subprocess, sys; "
        f"argv = {argv!r}; argv[4] = str(os.getpid()); "
        "print(subprocess.Popen(argv).pid, flush=True); import time; time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    until(lambda: SLEEP in child.cmdline() and "leash.py" not in " ".join(child.cmdline()))

    parent.kill()
    parent.communicate()

    assert gone(child)


def test_the_guard_ends_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", SLEEP], env=os.environ | marked(tmp_path), start_new_session=True
    )
    guard = subprocess.Popen(
        [sys.executable, "-P", str(GUARD), str(tmp_path)], stdin=subprocess.PIPE
    )
    until(lambda: [found.pid for found in leftovers(tmp_path)] == [left.pid])
    assert guard.poll() is None

    guard.communicate()  # closes the pipe, as the supervisor's death does

    assert left.wait(1) == -signal.SIGTERM
    assert guard.returncode == 0


def test_leftovers_that_do_not_listen_are_killed(tmp_path: Path) -> None:
    deaf = subprocess.Popen(
        [sys.executable, "-c", DEAF + SLEEP],
        env=os.environ | marked(tmp_path),
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout
    deaf.stdout.readline()

    assert end_leftovers(tmp_path, grace_s=0.2) == 1

    deaf.communicate()
    assert deaf.returncode == -signal.SIGKILL


def test_another_stack_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", SLEEP], env=os.environ | {MARK: str(tmp_path / "other")}
    )

    assert end_leftovers(tmp_path) == 0

    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_log_is_bounded_while_somebody_writes_to_it(tmp_path: Path) -> None:
    with (tmp_path / "it.log").open("a") as log:
        log.write("a" * 11)
        log.flush()
        bound_logs(tmp_path, limit_bytes=10)
        log.write("b")

    assert (tmp_path / "it.log").read_text() == "b"
    assert (tmp_path / "it.log.1").read_text() == "a" * 11


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def gone(process: psutil.Process) -> bool:
    _, alive = psutil.wait_procs([process], timeout=5)
    return not alive
