"""Single parts of the embedded stack, where they cannot start or are asked to stop too early."""

import asyncio
import socket
from pathlib import Path

import pytest

from pipeline.embedded import Plan, Progress, serve
from pipeline.embedded.guard import leftovers
from pipeline.errors import PipelineError, Refused, Unavailable

pytestmark = pytest.mark.connected


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRID_MEMORY_HOME", str(tmp_path))
    return tmp_path / "data"


async def served(plan: Plan, *, stop_after_s: float = 60.0) -> list[Progress]:
    told: list[Progress] = []
    until = asyncio.Event()
    asyncio.get_running_loop().call_later(stop_after_s, until.set)
    await serve(plan, on_progress=told.append, until=until)
    return told


async def test_a_part_that_cannot_start_says_why_and_the_others_are_stopped(data: Path) -> None:
    (data / "postgres").mkdir(parents=True, mode=0o700)
    (data / "postgres" / "PG_VERSION").write_text("9\n")
    (data / "postgres.password").write_text("secret")

    with pytest.raises(Unavailable, match=r"postgres does not start(.|\n)*postgres\.log"):
        await served(Plan(data, kafka_bootstrap_servers="there:9092"))

    assert leftovers(data) == []


@pytest.mark.parametrize("stop_after_s", [0.0, 0.3, 1.0, 1.6])
async def test_a_stack_that_is_stopped_while_it_starts_leaves_nothing(
    data: Path, stop_after_s: float
) -> None:
    await served(Plan(data), stop_after_s=stop_after_s)

    async with asyncio.timeout(5):
        # What initdb has just asked a shell for ends by itself, a moment after it.
        while leftovers(data):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_was_interrupted_while_it_was_made_is_made_anew(data: Path) -> None:
    for part in ("postgres.new", "kafka/1.new"):
        (data / part).mkdir(parents=True)
        (data / part / "half").touch()
    told: list[Progress] = []
    until = asyncio.Event()

    def stop_when_ready(_: object) -> None:
        until.set()

    await serve(Plan(data), on_progress=told.append, on_ready=stop_when_ready, until=until)

    assert {one.part for one in told if one.phase == "ready"} == {"kafka", "postgres", "valkey"}


async def test_a_given_port_that_is_taken_is_refused_before_anything_starts(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=rf"kafka cannot have the given port {port}"):
            await served(Plan(data, ports={"kafka": port}))


async def test_jars_that_are_not_there_are_said_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"kafka_2\.13"):
        await served(Plan(data, postgres_dsn="there", redis_url="there", kafka_jars=tmp_path))
