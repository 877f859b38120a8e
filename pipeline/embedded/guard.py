"""Outlives the supervisor by a few seconds, to end what it left behind.

The supervisor holds the only write end of a pipe; the guard reads the other end. When the pipe
closes, the supervisor is gone, however it died, and every process that carries this stack's mark in
its environment is asked to end, then made to. The guard also holds the lock of the data folder, so
that nobody opens the data while an old process still writes.

A script, started by its path. `end_leftovers` serves `up` and `down` too, for the case that the
guard was killed as well.
"""

import os
import signal
import sys
import time
from pathlib import Path

import psutil

MARK = "HYBRID_MEMORY_STACK"  # environment of every process of a stack: its data folder
LEAVE = signal.SIGUSR1  # from the supervisor that ended well
_MOST_ROUNDS = 10  # a process that the kernel cannot end must not keep us for ever


def leftovers(data: Path) -> list[psutil.Process]:
    """The processes that carry the mark of `data`, without this one."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(data) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def end_leftovers(data: Path, *, grace_s: float = 5.0) -> int:
    """Ask every process of the stack to end, kill what has not after `grace_s`; how many there were."""
    ended = 0
    quiet_rounds = 0
    for _ in range(_MOST_ROUNDS):
        found = leftovers(data)
        ended += len(found)
        if found:
            _end(found, grace_s)
        # A process between fork and exec does not show its mark yet: look again.
        quiet_rounds = 0 if found else quiet_rounds + 1
        if quiet_rounds == 2:
            break
        time.sleep(0.1)
    return ended


def _end(processes: list[psutil.Process], grace_s: float) -> None:
    family = _with_children(processes)
    for process in processes:
        _ask_to_end(process)
    for process in _alive_after(grace_s, family):
        try:
            process.kill()
        except psutil.Error:
            continue
    _alive_after(grace_s, family)


def _alive_after(limit_s: float, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait until all have ended, but not longer; those that have not."""
    deadline = time.monotonic() + limit_s
    while (alive := [one for one in processes if _is_alive(one)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    # One that ended stays a zombie until its parent asks, which may be never.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _with_children(processes: list[psutil.Process]) -> list[psutil.Process]:
    """A server's workers may hide their environment behind a process title."""
    family = set(processes)
    for process in processes:
        try:
            family.update(process.children(recursive=True))
        except psutil.Error:
            continue
    return list(family)


def _ask_to_end(process: psutil.Process) -> None:
    try:
        # To PostgreSQL, SIGTERM means: wait until the last client has left.
        process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    except psutil.Error:
        return


def _leave(*_: object) -> None:
    os._exit(0)


def main(data: Path) -> None:
    """Wait for the supervisor's end, then for the end of everything it started."""
    for asked in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(asked, signal.SIG_IGN)
    signal.signal(LEAVE, _leave)
    while sys.stdin.buffer.read(1):
        continue
    end_leftovers(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
