"""How a process of the stack is started: marked as ours, its life tied to the supervisor's, logged."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from pipeline.embedded.guard import MARK
from pipeline.embedded.state import make_private
from pipeline.errors import Unavailable

_LEASH = Path(__file__).with_name("leash.py")
_TAIL_BYTES = 4_000


@dataclass(frozen=True)
class User:
    """Whom a process runs as when the supervisor is root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """How to start a process, and how to ask it to end."""

    argv: Sequence[str]
    cwd: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    user: User | None = None
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float = 20.0
    leashed: bool = True
    stdin: int = subprocess.DEVNULL
    pass_fds: Sequence[int] = ()


def leashed(argv: Sequence[str], *, user: User | None = None, stop_signal: int) -> list[str]:
    """The command line that becomes `argv` with its life tied to this process (see leash.py)."""
    who = user or User(-1, -1)
    numbers = (os.getpid(), int(stop_signal), who.uid, who.gid)
    return [sys.executable, "-I", "-S", str(_LEASH), *map(str, numbers), *argv]


def marked(data: Path, **environment: str) -> dict[str, str]:
    """The environment that shows a process to belong to the stack on `data`."""
    return {MARK: str(data), **environment}


async def spawn(command: Command) -> asyncio.subprocess.Process:
    """Start a process in a session of its own: the terminal's Ctrl-C is for the supervisor alone."""
    argv = command.argv
    if command.leashed:
        argv = leashed(argv, user=command.user, stop_signal=command.stop_signal)
    with _opened(command.log) as log:
        return await asyncio.create_subprocess_exec(
            *argv,
            cwd=command.cwd,
            env={**os.environ, **command.env},
            stdin=command.stdin,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=command.pass_fds,
        )


def kill_group(pid: int) -> None:
    """Kill the process and what it started, at once."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def run_to_end(command: Command, text: str = "") -> None:
    """Run a command that prepares something, with `text` on its standard input.

    Raises Unavailable with the end of its log when it fails.
    """
    process = await spawn(replace(command, stdin=subprocess.PIPE))
    try:
        await process.communicate(text.encode())
    finally:
        if process.returncode is None:
            kill_group(process.pid)
            await process.wait()
    if process.returncode:
        program = Path(command.argv[0]).name
        raise Unavailable(
            f"{program} {manner(process.returncode)}. The end of {command.log}:\n{tail(command.log)}"
        )


def tail(path: Path, *, lines: int = 15, since: int = 0) -> str:
    """The last lines of a log, of those behind `since` bytes of it."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            # One that is shorter than it was has been emptied since.
            file.seek(max(since if since <= size else 0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"({error})"
    return "\n".join(text.splitlines()[-lines:])


def size_of(log: Path) -> int:
    """In bytes; 0 where there is none yet."""
    return log.stat().st_size if log.exists() else 0


def _opened(log: Path) -> IO[bytes]:
    make_private(log.parent)
    return log.open("ab")


def manner(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"killed by {signal.Signals(-code).name}"
