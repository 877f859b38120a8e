import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.embedded.state import (
    DataLock,
    PartState,
    Stack,
    announce,
    discover,
    withdraw,
    write_private,
)
from pipeline.errors import Refused


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRID_MEMORY_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def data(home: Path) -> Path:
    folder = home / "data"
    folder.mkdir()
    return folder


def a_stack(data: Path) -> Stack:
    return Stack(
        data=data,
        pid=os.getpid(),
        started_at=1_700_000_000.5,
        kafka_bootstrap_servers="127.0.0.1:9092",
        postgres_dsn="postgresql://hybrid_memory:secret@127.0.0.1:5432/hybrid_memory",
        redis_url="redis://:secret@127.0.0.1:6379/0",
        qdrant_path=data / "qdrant",
        parts={"kafka": PartState(4711, "127.0.0.1:9092"), "embedder": PartState(None)},
    )


async def held(data: Path) -> DataLock:
    lock = DataLock(data)
    await lock.take()
    return lock


async def test_an_announced_stack_is_found_as_it_was(data: Path) -> None:
    lock = await held(data)
    announce(a_stack(data))

    assert discover(data) == a_stack(data)
    assert discover() == a_stack(data), "by the pointer"
    lock.release()


async def test_a_stack_nobody_holds_is_stale_even_if_its_pid_lives(data: Path) -> None:
    lock = await held(data)
    announce(a_stack(data))
    lock.release()

    assert discover(data) is None


async def test_a_stack_whose_supervisor_died_is_gone_while_its_remains_hold_the_data(
    data: Path,
) -> None:
    lock = await held(data)
    announce(replace(a_stack(data), pid=pid_of_a_process_that_ended()))

    assert discover(data) is None
    lock.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"parts": {"kafka": 3}}'])
async def test_a_file_that_says_nothing_useful_is_no_stack(data: Path, text: str) -> None:
    lock = await held(data)
    (data / "stack.json").write_text(text)

    assert discover(data) is None
    lock.release()


def test_a_pointer_that_says_nothing_useful_is_no_pointer(home: Path) -> None:
    (home / "running.json").write_text("[]")

    assert discover() is None


async def test_a_withdrawn_stack_leaves_no_word(data: Path, home: Path) -> None:
    announce(a_stack(data))
    withdraw(data)

    assert not (data / "stack.json").exists()
    assert not (home / "running.json").exists()


async def test_withdrawing_leaves_the_pointer_to_another_stack(data: Path, home: Path) -> None:
    announce(a_stack(data))
    announce(a_stack(home / "other"))
    withdraw(data)

    assert (home / "running.json").exists()


async def test_a_stack_that_stands_aside_is_found_by_its_data_while_another_runs(
    data: Path, home: Path
) -> None:
    users, demo = data, home / "demo"
    demo.mkdir()
    beside = await held(demo)
    announce(a_stack(demo), aside=True)
    assert discover() == a_stack(demo), "alone, it is found by itself"

    lock = await held(users)
    announce(a_stack(users))
    announce(a_stack(demo), aside=True)

    assert discover() == a_stack(users)
    assert discover(demo) == a_stack(demo)
    lock.release()
    beside.release()


async def test_data_that_are_held_are_refused_with_the_holder(data: Path) -> None:
    lock = await held(data)

    with pytest.raises(Refused, match=f"process {os.getpid()}"):
        await DataLock(data).take()
    lock.release()


async def test_the_remains_of_a_killed_supervisor_are_waited_for(data: Path) -> None:
    remains = await held(data)
    (data / "lock").write_text("")  # whoever wrote its pid here is dead
    waiting = asyncio.create_task(held(data))
    await asyncio.sleep(0.3)
    assert not waiting.done()

    remains.release()

    (await waiting).release()


async def test_looking_for_a_stack_does_not_keep_one_from_starting(data: Path) -> None:
    async def look() -> None:
        while True:
            discover(data)
            await asyncio.sleep(0)

    announce(a_stack(data))
    looking = asyncio.create_task(look())
    for _ in range(20):
        (await held(data)).release()
    looking.cancel()


def pid_of_a_process_that_ended() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_file_that_could_not_be_written_leaves_nothing_behind(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = home / "password"
    write_private(kept, "old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_private(kept, "new")
    assert list(home.iterdir()) == [kept]
    assert kept.read_text() == "old"
