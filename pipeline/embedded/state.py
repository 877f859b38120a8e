"""What is known about a stack from outside: where its data are, whether it runs, where it answers.

`<data>/lock` is held while any process of the stack may still write to the data; `<data>/stack.json`
says where the parts answer; `running.json` in the user's state folder names the data folder of the
stack that was started last, so that every command finds it by itself.
"""

import asyncio
import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from pipeline.errors import Refused

_APPLICATION = "hybrid-memory"
_PATIENCE_WITH_REMAINS_S = 15.0


@dataclass(frozen=True)
class PartState:
    """One process of the stack; `pid` is None while it is down, `address` "" where it has none."""

    pid: int | None
    address: str = ""
    halted: str = ""
    """What it said last, where it ended such that it is not started again."""


@dataclass(frozen=True)
class Stack:
    """A running stack: the supervisor's pid, when it was ready (epoch seconds), and every address."""

    data: Path
    pid: int
    started_at: float
    kafka_bootstrap_servers: str
    postgres_dsn: str
    redis_url: str
    qdrant_path: Path
    parts: Mapping[str, PartState] = field(default_factory=dict[str, PartState])


def state_dir() -> Path:
    """Where this user's commands leave word for each other."""
    home = os.environ.get("HYBRID_MEMORY_HOME")
    return Path(home).expanduser() if home else Path(platformdirs.user_state_dir(_APPLICATION))


def default_data() -> Path:
    """The data folder of a stack that was given none."""
    home = os.environ.get("HYBRID_MEMORY_HOME")
    folder = Path(home) / "data" if home else Path(platformdirs.user_data_dir(_APPLICATION))
    return folder.expanduser()


def discover(data: Path | None = None) -> Stack | None:
    """The stack that runs on `data`, or else the one this user started last; None if none runs."""
    folders = [data.expanduser().resolve()] if data else [last_started(), default_data().resolve()]
    for folder in folders:
        stack = _read_stack(folder) if folder else None
        # The lock tells a live stack from a stale file whose pid was given to somebody else.
        if stack and is_alive(stack.pid) and DataLock.is_held(stack.data):
            return stack
    return None


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter; one that exists stays as it is."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)


def announce(stack: Stack, *, aside: bool = False) -> None:
    """Let other commands find this stack, or its new pids; atomic, readable by this user only.

    One that stands `aside` is found by its data alone as long as another runs.
    """
    write_private(stack.data / "stack.json", json.dumps(asdict(stack), default=str, indent=1))
    found = discover() if aside else None
    if found is None or found.data == stack.data:
        write_private(_pointer(), json.dumps({"data": str(stack.data)}))


def withdraw(data: Path) -> None:
    """The stack on `data` is gone."""
    (data / "stack.json").unlink(missing_ok=True)
    if last_started() == data:
        _pointer().unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, mode 0600, making its folder where it is missing."""
    make_private(path.parent)
    handle, written = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(written).replace(path)
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise


def kept_password(path: Path) -> str:
    """The password kept in `path`; a new random one the first time."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text().strip()


def _pointer() -> Path:
    return state_dir() / "running.json"


def last_started() -> Path | None:
    """The data folder of the stack that this user started last, if its pointer is still there."""
    named = _read_json(_pointer()).get("data")
    return Path(named) if named else None


def _read_stack(data: Path) -> Stack | None:
    told = _read_json(data / "stack.json")
    try:
        return Stack(
            data=Path(told["data"]),
            pid=told["pid"],
            started_at=told["started_at"],
            kafka_bootstrap_servers=told["kafka_bootstrap_servers"],
            postgres_dsn=told["postgres_dsn"],
            redis_url=told["redis_url"],
            qdrant_path=Path(told["qdrant_path"]),
            parts={name: PartState(**part) for name, part in told["parts"].items()},
        )
    except (KeyError, TypeError):
        return None  # no file, or another version's


def _read_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


class DataLock:
    """One supervisor per data folder; let go when the last process that holds `fd` has ended."""

    def __init__(self, data: Path) -> None:
        self._path = _path_of_lock(data)
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def take(self) -> None:
        """Take the lock, or raise Refused with who holds it.

        Waits a while for the remains of a supervisor that was killed, whose guard still ends
        what it left running.
        """
        began = time.monotonic()
        while not self._try():
            holder = self.holder(self._path.parent)
            waited_s = time.monotonic() - began
            # A second also for a live holder: somebody may just be looking (`is_held`).
            if waited_s > (1.0 if holder else _PATIENCE_WITH_REMAINS_S):
                self.release()
                raise Refused(in_use(self._path.parent, holder))
            await asyncio.sleep(0.1)
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self.fd)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @staticmethod
    def holder(data: Path) -> int | None:
        """The supervisor that took the lock last, if that process is alive."""
        try:
            pid = int(_path_of_lock(data).read_text())
        except (OSError, ValueError):
            return None
        return pid if is_alive(pid) else None

    @staticmethod
    def is_held(data: Path) -> bool:
        try:
            fd = os.open(_path_of_lock(data), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(fd)


def _path_of_lock(data: Path) -> Path:
    return data / "lock"


def in_use(data: Path, holder: int | None) -> str:
    """What to tell whoever wants data that another stack holds."""
    who = f"by process {holder}" if holder else "by what a killed stack left behind"
    return (
        f"The data in {data} are in use {who}. Stop that stack with `hybrid-memory down --data "
        f"{data}`, or give this one another folder with --data."
    )
