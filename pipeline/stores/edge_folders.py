"""The folders of an Edge index: the one in use, named by the file `current`, and one that is being filled.

owner.lock   whose the index is
current      the folder in use; `index` where the file is not there
index...     shape.json and the engine's shard
"""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from io import TextIOWrapper
from pathlib import Path
from uuid import uuid4

from pipeline.errors import Refused
from pipeline.stores.edge_files import check_shape, current, locked, make, owned
from pipeline.stores.hot import Keep
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import IndexShape
from pipeline.stores.qdrant_edge import open_folder
from pipeline.stores.replaceable import ReplaceableIndex


class EdgeFolders:
    """The indexes in one directory, of which this process is the owner."""

    def __init__(
        self, directory: Path, shape: IndexShape, lock: TextIOWrapper, keep: Keep | None
    ) -> None:
        self._directory, self._shape, self._lock, self._keep = directory, shape, lock, keep

    async def open(self, name: str) -> VectorIndex:
        if name != current(self._directory) and not (self._directory / name).is_dir():
            raise Refused(
                f"There is no index {name} in {self._directory}: begin the rebuild again."
            )
        return await open_folder(self._directory / name, self._shape, keep=self._keep)

    async def keep(self, name: str) -> None:
        await asyncio.to_thread(keep, self._directory, name)

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._directory / name, ignore_errors=True)

    async def close(self) -> None:
        self._lock.close()


async def open_owned(
    directory: Path,
    shape: IndexShape,
    *,
    keep: Keep | None = None,
    lock: TextIOWrapper | None = None,
) -> ReplaceableIndex:
    """The index in `directory`, made if there is none, which may be replaced by a fresh one.

    `lock` is the directory's, where the caller `owned` it before; it is closed with the index, and where
    this raises. Raises Refused where the directory has an owner, or holds the vectors of another model.
    """
    lock = lock if lock and not lock.closed else owned(directory)
    try:
        name = current(directory)
        if not (directory / name).exists():
            _check_not_lost(directory, name)
            await asyncio.to_thread(make, directory / name, shape)
        folders = EdgeFolders(directory, shape, lock, keep)
        return ReplaceableIndex(folders, name, await folders.open(name))
    except BaseException:
        lock.close()
        raise


def _check_not_lost(directory: Path, name: str) -> None:
    """An index that was there is not replaced by an empty one, which would find nothing and not say so."""
    if (directory / "current").exists():
        raise Refused(
            f"The index {directory / name} is gone. `hybrid-memory rebuild` makes it anew from the record; "
            "stop the stages first."
        )


@asynccontextmanager
async def fresh_folder(
    directory: Path, shape: IndexShape
) -> AsyncGenerator[tuple[str, VectorIndex]]:
    """The name of a fresh index beside the one in use, and the index, to be filled.

    What an interrupted rebuild has left is removed first. The folder goes at the end unless it is in use
    by then. Close the index before its owner opens it. Raises Refused while another rebuild runs.
    """
    busy = f"Another rebuild of {directory} is running: wait for it."
    with locked(directory / "rebuild.lock", busy):
        await asyncio.to_thread(_clear, directory)
        name = f"index-{uuid4().hex}"
        await asyncio.to_thread(make, directory / name, shape)
        index = await open_folder(directory / name, shape)
        try:
            yield name, index
        finally:
            await index.close()
            if current(directory) != name:
                await asyncio.to_thread(shutil.rmtree, directory / name, ignore_errors=True)


def check_folder(directory: Path, shape: IndexShape) -> None:
    """Raises Refused where the folder in use holds the vectors of another model."""
    check_shape(directory / current(directory), shape)


def take_over(directory: Path, name: str) -> None:
    """Makes `name` the index in use of a directory that nobody owns. Raises Refused where somebody does."""
    with owned(directory):
        old = current(directory)
        keep(directory, name)
        shutil.rmtree(directory / old, ignore_errors=True)


def keep(directory: Path, name: str) -> None:
    """Names the folder in use, atomically and for good."""
    told = directory / "current.new"
    with told.open("w") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
    told.replace(directory / "current")
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _clear(directory: Path) -> None:
    in_use = current(directory)
    for folder in directory.glob("index*"):
        if folder.name != in_use:
            shutil.rmtree(folder, ignore_errors=True)
