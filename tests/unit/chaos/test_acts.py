"""What is done to processes, connections and disks, each on something small of the test's own."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.chaos.brittle import Brittle
from pipeline.chaos.disk import filled, no_longer_files, own_disk
from pipeline.chaos.faults import Stage, pid_of, running, struck
from pipeline.chaos.plan import REFUSED_MARK, Fault, planned
from pipeline.chaos.proxy import Proxy
from pipeline.chaos.publishing import batches, content, said
from pipeline.chaos.striking import in_flight_of
from pipeline.chaos.watching import READS
from pipeline.domain.identity import content_hash
from pipeline.embedded.ports import HOST, keep_ports
from pipeline.errors import Unusable
from pipeline.models.hashing import HashingEmbedder
from tests.builders import captured

WRITES = """
import sys, time
file = open(sys.argv[1], "ab", buffering=0)
while True:
    try:
        file.write(b"x" * 100)
    except OSError as error:
        print(error.errno, flush=True)
        break
    time.sleep(.005)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    family = psutil.Process(process.pid)
    until(lambda: len(family.children()) == 1)
    children = family.children()
    yield process
    for one in [*children, family]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def stage(process: subprocess.Popen[bytes]) -> Stage:
    return Stage(Path(), {"postgres": process.pid}, {}, own_disk=False)


async def test_a_killed_process_takes_its_children_with_it(
    sleeper: subprocess.Popen[bytes],
) -> None:
    family = [psutil.Process(sleeper.pid), *psutil.Process(sleeper.pid).children()]
    async with struck(stage(sleeper), Fault("killed", "postgres")):
        until(lambda: not any(alive(one) for one in family))


async def test_a_paused_process_goes_on_afterwards_and_so_do_its_children(
    sleeper: subprocess.Popen[bytes],
) -> None:
    family = [psutil.Process(sleeper.pid), *psutil.Process(sleeper.pid).children()]
    async with struck(stage(sleeper), Fault("paused", "postgres")):
        until(lambda: {one.status() for one in family} == {psutil.STATUS_STOPPED})
    until(lambda: psutil.STATUS_STOPPED not in {one.status() for one in family})


async def test_whoever_is_down_cannot_be_struck(sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(LookupError, match="valkey is down"):
        async with struck(stage(sleeper), Fault("killed", "valkey")):
            pytest.fail("it struck")


def test_a_stage_is_struck_wherever_it_runs() -> None:
    stage = Stage(
        Path(),
        {"embedder": 7, "vector_writer+tier_writer": 8, "lifecycle": None},
        {},
        own_disk=False,
    )
    assert pid_of(stage, "tier_writer") == pid_of(stage, "vector_writer") == 8
    assert running(stage, "lifecycle") is None
    with pytest.raises(LookupError, match="writer is down"):
        pid_of(stage, "writer")


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    """Before a server that says everything back."""
    ports = keep_ports(tmp_path / "ports.json", ["server", "proxy"], {})

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, HOST, ports["server"])
    async with server, Proxy(ports["proxy"], ports["server"]).serving() as proxy:
        yield proxy


async def test_a_proxy_passes_on_and_says_how_much(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    assert (proxy.connections, proxy.moved_bytes) == (1, 10)
    writer.close()


async def test_what_was_stalled_arrives_afterwards(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    async with proxy.stalled():
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
    assert await reader.readexactly(5) == b"hello"
    writer.close()


async def test_who_is_cut_off_is_reset_and_can_come_back_later(proxy: Proxy) -> None:
    before = await asyncio.open_connection(HOST, proxy.port)
    async with proxy.cut_off():
        assert await ended(*before)
        assert await ended(*await asyncio.open_connection(HOST, proxy.port))
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(b"back")
    assert await reader.readexactly(4) == b"back"
    writer.close()


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), 2) == b""
    except ConnectionError:
        return True
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_FSIZE"), reason="Linux has limits of others' files")
def test_a_process_that_may_not_make_files_longer_is_told_so(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(tmp_path / "file")], stdout=subprocess.PIPE
    ) as writer:
        until(lambda: (tmp_path / "file").exists())
        with no_longer_files(writer.pid):
            assert writer.communicate(timeout=10)[0]


def test_a_full_disk_is_full_only_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with own_disk(folder) as possible:
        if not possible:
            pytest.skip("a disk of its own needs root, mkfs.ext4 and loop devices")
        file = folder / "file"
        with filled(folder), pytest.raises(OSError, match="No space left"):
            write_through(file)
        write_through(file)
        assert file.stat().st_size == 1_000_000
    assert not os.path.ismount(folder)


def write_through(file: Path) -> None:
    with file.open("wb") as opened:
        opened.write(b"x" * 1_000_000)
        opened.flush()
        os.fsync(opened.fileno())


async def test_the_brittle_embedder_refuses_the_marked_and_embeds_the_rest() -> None:
    whole = HashingEmbedder()
    brittle = Brittle(whole)
    assert (brittle.model, brittle.dimensions) == (whole.model, whole.dimensions)
    assert len(await brittle.embed(["fine", "fine too"])) == 2
    with pytest.raises(Unusable):
        await brittle.embed(["fine", f"not this {REFUSED_MARK}"])


def test_a_step_hashes_as_the_event_that_it_becomes() -> None:
    step = next(step for step in planned(1, events=300).slices[0] if step.kind == "captured")
    assert content(step) == content_hash(captured(**said(step)))


def test_what_is_remembered_in_a_row_goes_in_one_call_in_order() -> None:
    steps = [step for part in planned(2, events=2_000).slices for step in part]
    cut = list(batches(steps))
    assert [step for batch in cut for step in batch] == steps
    alone = {batch[0].kind for batch in cut if len(batch) == 1}
    assert {"revised", "forgotten", "poison"} <= alone
    assert {s.kind for b in cut if len(b) > 1 for s in b} == {"captured", "overwritten", "refused"}


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("embedder", ("embedder",)),
        ("vector_writer", ("vector_writer",)),
        ("tier_writer", ("tier_writer",)),
        ("lifecycle", ("lifecycle",)),
        ("postgres", ("record_writer",)),
        ("valkey", ("embedder",)),
        ("kafka-2", tuple(READS)),
        ("disk", tuple(READS)),
    ],
)
def test_who_is_struck_tells_whose_work_is_in_flight(target: str, stages: tuple[str, ...]) -> None:
    assert in_flight_of(target) == stages


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def until(holds: object, *, timeout_s: float = 10.0) -> None:
    assert callable(holds)
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
