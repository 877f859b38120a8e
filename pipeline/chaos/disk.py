"""A disk that is full for a while: the real thing where we may mount, a limit on files elsewhere.

As root the stack's data lie in a file system of their own, an image that a balloon can fill: every
process then meets `No space left on device`. Elsewhere one process is forbidden to make any file longer
(RLIMIT_FSIZE), which it meets as an error of the same kind. Where neither can be had, the fault is
skipped, and the report says so.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

IMAGE_BYTES = 48 * 1024**3
"""Sparse: it takes on the real disk what is written into it."""


@contextmanager
def own_disk(folder: Path) -> Generator[bool]:
    """Mounts an image of its own on `folder`; whether that was possible."""
    image = folder.with_suffix(".img")
    mounted = _mount(image, folder)
    try:
        yield mounted
    finally:
        if mounted:
            _tell("umount", "--lazy", str(folder))
        image.unlink(missing_ok=True)


def _mount(image: Path, folder: Path) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        return False
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    return (
        # No blocks kept back for root: its servers must meet the end of the disk, too.
        _tell("mkfs.ext4", "-q", "-m", "0", str(image))
        and _tell("mount", "-o", "loop", str(image), str(folder))
    )


def _tell(program: str, *arguments: str) -> bool:
    found = shutil.which(program)
    if found is None:
        return False
    told = subprocess.run([found, *arguments], capture_output=True, check=False)  # noqa: S603
    return told.returncode == 0


@contextmanager
def filled(folder: Path) -> Generator[None]:
    """For the time of the block there is no room left on the disk of `folder`."""
    balloon = folder / "balloon"
    try:
        with balloon.open("wb") as file:
            _fill(file.fileno(), folder)
        yield
    finally:
        balloon.unlink(missing_ok=True)


def _fill(file: int, folder: Path) -> None:
    size, step = 0, 1024**3
    while step >= 4096:
        free = os.statvfs(folder)
        step = min(step, max(4096, free.f_bavail * free.f_frsize))
        try:
            os.posix_fallocate(file, size, step)
            size += step
        except OSError:
            step //= 2


@contextmanager
def no_longer_files(pid: int) -> Generator[None]:
    """For the time of the block the process can make no file longer. It may die of it."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with suppress(psutil.Error):
            process.rlimit(psutil.RLIMIT_FSIZE, before)
