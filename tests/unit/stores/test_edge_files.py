"""Qdrant Edge leaves no file open, lock or thread behind, whatever fails."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.stores.edge_files import owned
from pipeline.stores.edge_folders import open_owned
from pipeline.stores.points import IndexShape
from pipeline.stores.qdrant_edge import EdgePoints
from tests.builders import DIMENSIONS, MODEL


class Shard:
    """A shard whose disk is gone."""

    def close(self) -> None:
        raise OSError("the disk is gone")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EdgePoints]:
    """Points whose log has two files."""
    log = tmp_path / "wal"
    log.mkdir()
    for name in ("a", "b"):
        (log / name).touch()
    shard: Any = Shard()
    with ThreadPoolExecutor(1) as thread:
        yield EdgePoints(shard, log, thread)


def open_below(folder: Path) -> list[str]:
    """The paths of what this process has open there."""
    there: list[str] = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            there.append(str(link.readlink()))
        except OSError:
            continue
    return [path for path in there if path.startswith(str(folder / "wal"))]


def failing_at(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[object] = []

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            raise OSError("too much")
        return real(*arguments, **named)

    return call


linux_only = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="what is open is looked up in /proc"
)


@linux_only
@pytest.mark.parametrize("name", ["open", "fsync"])
async def test_a_sync_that_fails_leaves_no_file_open(
    name: str, index: EdgePoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, name, failing_at(2, getattr(os, name)))
    with pytest.raises(OSError, match="too much"):
        await index.settle()
    assert open_below(tmp_path) == []


@linux_only
async def test_a_sync_that_is_cut_short_leaves_no_file_open(
    index: EdgePoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on = threading.Event(), threading.Event()
    real = os.open

    def slow(*arguments: Any, **named: Any) -> int:
        opening.set()
        go_on.wait(5)
        return real(*arguments, **named)

    monkeypatch.setattr(os, "open", slow)
    before = asyncio.all_tasks()
    syncing = asyncio.create_task(index.settle())
    await asyncio.to_thread(opening.wait, 5)
    syncing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await syncing
    go_on.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*asyncio.all_tasks() - before, return_exceptions=True)
    assert open_below(tmp_path) == []


async def test_an_owner_whose_index_does_not_close_gives_its_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise OSError("the disk is gone")

    opened = await open_owned(tmp_path, IndexShape(MODEL, DIMENSIONS))
    points, close = opened.current.points, opened.current.points.close
    monkeypatch.setattr(points, "close", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        await opened.close()
    owned(tmp_path).close()
    await close()
