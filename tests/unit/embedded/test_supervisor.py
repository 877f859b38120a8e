"""The supervisor with every part given from outside: only stages run, and they are trivial."""

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.embedded import Plan, Process, Progress, Stack, crew, detach, discover, serve, stop
from pipeline.embedded.guard import leftovers
from pipeline.embedded.state import PartState, is_alive
from pipeline.errors import Refused, Unavailable

KAFKA, POSTGRES, REDIS = "kafka.example:9092", "postgresql://there/db", "redis://there"
SLEEP = "import time; time.sleep(60)"
IN_BACKGROUND = """
import asyncio, sys
from pathlib import Path
from pipeline.embedded import Plan, run

given = dict(kafka_bootstrap_servers="k:1", postgres_dsn="postgresql://p", redis_url="redis://r")
print("hello", flush=True)
asyncio.run(run(Plan(Path(sys.argv[1]), **given), on_progress=print))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRID_MEMORY_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def data(home: Path) -> Path:
    return home / "data"


@dataclass
class Served:
    stack: Stack
    until: asyncio.Event
    told: list[Progress] = field(default_factory=list[Progress])

    def count(self, part: str, phase: str) -> int:
        return sum(one.part == part and one.phase == phase for one in self.told)


def a_plan(data: Path, stages: Callable[[Stack], Sequence[Process]]) -> Plan:
    return Plan(data, KAFKA, POSTGRES, REDIS, stages=stages)


def stage(name: str, code: str, **env: str) -> Process:
    return Process(name, [sys.executable, "-c", code], env)


@asynccontextmanager
async def served(data: Path, *stages: Process) -> AsyncGenerator[Served]:
    until = asyncio.Event()
    told: list[Progress] = []
    ready: asyncio.Future[Stack] = asyncio.get_running_loop().create_future()
    plan = a_plan(data, lambda _: stages)
    serving = asyncio.create_task(
        serve(plan, on_progress=told.append, on_ready=ready.set_result, until=until)
    )
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    yield Served(ready.result(), until, told)
    until.set()
    await serving


async def test_given_addresses_are_used_and_their_parts_not_started(data: Path) -> None:
    async with served(data) as running:
        assert running.stack.kafka_bootstrap_servers == KAFKA
        assert running.stack.postgres_dsn == POSTGRES
        assert running.stack.redis_url == REDIS
        assert running.stack.parts == {}
        assert running.stack.qdrant_path.is_dir()
        assert discover() == running.stack


async def test_a_stage_gets_its_environment_and_its_log(data: Path) -> None:
    code = f"import os; print('hello', os.environ['WHO'], flush=True); {SLEEP}"
    async with served(data, stage("greeter", code, WHO="Ada")):
        await eventually(lambda: (data / "logs" / "greeter.log").read_text() == "hello Ada\n")


async def test_a_stage_that_crashes_is_started_again_and_its_new_pid_is_told(data: Path) -> None:
    async with served(data, stage("sleeper", SLEEP)) as running:
        first = running.stack.parts["sleeper"].pid
        assert first

        os.kill(first, signal.SIGKILL)

        await eventually(lambda: running.count("sleeper", "running") == 2)
        now = discover(data)
        assert now
        assert now.parts["sleeper"].pid not in (None, first)


async def test_a_full_disk_stops_nothing_and_the_new_pid_is_told_later(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Stack, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(crew, "_HOUSEKEEPING_INTERVAL_S", 0.05)
    async with served(data, stage("sleeper", SLEEP)) as running:
        first = running.stack.parts["sleeper"].pid
        assert first
        with monkeypatch.context() as disk:
            disk.setattr(crew, "announce", full)
            os.kill(first, signal.SIGKILL)
            await eventually(lambda: running.count("sleeper", "running") == 2)
        await eventually(lambda: pid_told(data, "sleeper") not in (None, first))


async def test_a_disk_that_is_full_at_the_start_is_told_and_nothing_is_left(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Stack, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(crew, "announce", full)
    with pytest.raises(Unavailable, match=r"takes nothing more: .*No space left on device"):
        async with served(data, stage("sleeper", SLEEP)):
            pass
    assert leftovers(data) == []


async def test_a_stage_that_is_misconfigured_says_why_and_is_left_alone(data: Path) -> None:
    code = "print('QDRANT_URL: no such host'); raise SystemExit(78)"
    async with served(data, stage("writer", code)) as running:
        await eventually(lambda: running.count("writer", "refused") == 1)

        [refused] = [one for one in running.told if one.phase == "refused"]
        assert "QDRANT_URL: no such host" in refused.detail
        now = discover(data)
        assert now
        assert now.parts["writer"] == PartState(None, halted="QDRANT_URL: no such host")


async def test_stages_stop_side_by_side(data: Path) -> None:
    sleepers = [stage(f"sleeper-{number}", SLEEP) for number in range(3)]
    async with served(data, *sleepers) as running:
        began = time.monotonic()
        running.until.set()
        await eventually(lambda: sum(one.phase == "stopped" for one in running.told) == 3)

        assert time.monotonic() - began < 5
    assert leftovers(data) == []


async def test_two_stages_of_one_name_are_refused_and_nothing_is_left(data: Path) -> None:
    with pytest.raises(Refused, match="sleeper"):
        async with served(data, stage("sleeper", SLEEP), stage("sleeper", SLEEP)):
            pass

    assert leftovers(data) == []
    assert discover(data) is None


async def test_a_bug_in_the_plan_ends_the_stack(data: Path) -> None:
    def broken(_: Stack) -> Sequence[Process]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await serve(a_plan(data, broken), on_progress=print, until=asyncio.Event())

    assert discover(data) is None


async def test_a_cancelled_supervisor_stops_its_stages_first(data: Path) -> None:
    told: list[Progress] = []
    plan = a_plan(data, lambda _: [stage("sleeper", SLEEP)])
    serving = asyncio.create_task(serve(plan, on_progress=told.append, until=asyncio.Event()))
    await eventually(lambda: any(one.phase == "running" for one in told))

    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving

    assert told[-1] == Progress("sleeper", "stopped")
    assert leftovers(data) == []


async def test_a_folder_that_cannot_be_used_is_refused(home: Path) -> None:
    (home / "file").touch()

    with pytest.raises(Refused, match="cannot be used"):
        await serve(a_plan(home / "file", lambda _: ()), on_progress=print, until=asyncio.Event())


async def test_the_mode_of_a_folder_that_was_there_is_left_alone(home: Path) -> None:
    (home / "theirs").mkdir(mode=0o755)
    async with served(home / "theirs"):
        pass

    assert (home / "theirs").stat().st_mode & 0o777 == 0o755


def test_a_stack_in_the_background_is_found_and_stopped(data: Path) -> None:
    lines: list[str] = []

    stack = detach([sys.executable, "-c", IN_BACKGROUND, str(data)], data, on_line=lines.append)

    assert lines[0] == "hello"
    assert discover() == stack
    assert stop()
    assert discover() is None
    assert not is_alive(stack.pid)


def test_a_background_that_ends_too_soon_says_why(data: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('no Kafka here')"]

    with pytest.raises(Unavailable, match="no Kafka here"):
        detach(argv, data, on_line=print)


def test_a_background_that_refuses_is_refused(data: Path) -> None:
    argv = [sys.executable, "-c", "print('this port is taken'); raise SystemExit(2)"]

    with pytest.raises(Refused, match="this port is taken"):
        detach(argv, data, on_line=print)


def test_a_background_that_is_never_ready_is_ended(data: Path) -> None:
    pid = data.parent / "pid"
    code = f"import os, pathlib; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); {SLEEP}"

    with pytest.raises(Unavailable, match="not ready after 1 s"):
        detach([sys.executable, "-c", code], data, on_line=print, timeout_s=1)

    assert not is_alive(int(pid.read_text()))


def test_stopping_what_does_not_run_is_no_error(data: Path) -> None:
    assert stop(data) is False
    assert stop() is False


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def pid_told(data: Path, stage: str) -> int | None:
    now = discover(data)
    return now.parts[stage].pid if now else None
