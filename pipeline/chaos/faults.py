"""What is done to the processes of a stack: signals, proxies, a full disk."""

import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.chaos.disk import filled, no_longer_files
from pipeline.chaos.plan import Fault
from pipeline.chaos.proxy import Proxy

# To PostgreSQL, SIGTERM means: wait until the last client has left.
_STOP = {"postgres": signal.SIGINT}
DISK_VICTIM = "vector_writer"
"""Whose files are limited where the disk is not ours to fill."""


@dataclass(frozen=True)
class Stage:
    """What faults are done to: the processes by name, the proxies before them, the disk."""

    data: Path
    pids: Mapping[str, int | None]
    """Of now, by process; it changes under us. The name of a process is those of its stages, with + between."""
    proxies: Mapping[str, Proxy]
    own_disk: bool


def running(stage: Stage, name: str) -> int | None:
    """The process of a part or a stage; None where it is down just now."""
    with_it = (pid for process, pid in stage.pids.items() if name in process.split("+"))
    return next(with_it, None)


def pid_of(stage: Stage, name: str) -> int:
    """Raises LookupError where the process is down just now."""
    pid = running(stage, name)
    if pid is None:
        raise LookupError(f"{name} is down")
    return pid


@asynccontextmanager
async def struck(stage: Stage, fault: Fault) -> AsyncGenerator[None]:
    """The fault strikes on entering, and is over on leaving."""
    match fault.manner:
        case "killed":
            kill(pid_of(stage, fault.target))
            yield
        case "stopped":
            number = _STOP.get(fault.target, signal.SIGTERM)
            os.kill(pid_of(stage, fault.target), number)
            yield
        case "paused":
            with paused(pid_of(stage, fault.target)):
                yield
        case "stalled":
            async with stage.proxies[fault.target].stalled():
                yield
        case "cut off":
            async with stage.proxies[fault.target].cut_off():
                yield
        case "full":
            with (
                filled(stage.data)
                if stage.own_disk
                else no_longer_files(pid_of(stage, DISK_VICTIM))
            ):
                yield


def kill(pid: int) -> None:
    """SIGKILL for the process and all it started, as an out-of-memory killer would."""
    _signal_family(pid, signal.SIGKILL)


class paused:  # noqa: N801 - reads as what it is
    """SIGSTOP for the process and all it started, and SIGCONT at the end of the block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        # Itself first: then nothing new is started that would be missed.
        _signal_family(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        _signal_family(self._pid, signal.SIGCONT)


def _signal_family(pid: int, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = process.children(recursive=True)
        process.send_signal(number)
        if number != signal.SIGKILL:
            family = process.children(recursive=True)
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)
