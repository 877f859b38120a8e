"""A stack in the background: `up --detach` starts a supervisor of its own, `down` ends it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import IO

from pipeline.embedded.guard import end_leftovers
from pipeline.embedded.process import tail
from pipeline.embedded.state import (
    DataLock,
    Stack,
    default_data,
    discover,
    in_use,
    is_alive,
    last_started,
    make_private,
    withdraw,
)
from pipeline.errors import Halted, Refused, Unavailable

_POLL_INTERVAL_S = 0.1
_STOP_TIMEOUT_S = 90.0
# How our command line ends where the call cannot be right, or it cannot run as it is installed.
_REFUSALS = {2: Refused, 78: Halted}
_PATIENCE_WITH_THE_DYING_S = 1.0  # a killed process is there for a moment


def detach(
    argv: Sequence[str],
    data: Path,
    *,
    on_line: Callable[[str], None],
    timeout_s: float = 900.0,
) -> Stack:
    """Start `argv`, a foreground supervisor on `data`, in the background; its stack once ready.

    What it writes goes to `<data>/logs/up.log`, and line by line to `on_line` until then. Raises
    Refused where the data are in use or the supervisor refuses to start, Halted where it cannot run as
    configured, Unavailable with the end of the log when it ends or is not ready in time (the first start fetches 45 MB); then, as after a Ctrl-C, nothing is left running.
    """
    data = data.expanduser().resolve()
    _refuse_if_in_use(data)
    log = data / "logs" / "up.log"
    make_private(data)
    make_private(log.parent)
    log.write_bytes(b"")
    with log.open("ab") as output:
        supervisor = subprocess.Popen(  # noqa: S603 - the caller's own command line
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Whoever outlives the supervisor takes note of its end: no zombie is left.
    Thread(target=supervisor.wait, name="supervisor", daemon=True).start()
    try:
        with log.open() as written:
            return _until_ready(supervisor, data, _Relay(written, on_line), timeout_s)
    except BaseException:
        _end(supervisor)
        raise


def stop(data: Path | None = None) -> bool:
    """End the stack on `data`, or the one this user started last; whether there was one.

    Returns when every process of it is gone. Ends what a killed supervisor left behind as well.
    Raises Unavailable when it does not end in time.
    """
    folder = _folder_of(data)
    if folder is None or not folder.is_dir():
        return False
    holder = DataLock.holder(folder) if DataLock.is_held(folder) else None
    if holder:
        os.kill(holder, signal.SIGTERM)
    _until_released(folder, holder)
    ended = end_leftovers(folder)
    stale = (folder / "stack.json").exists()
    withdraw(folder)
    return bool(holder or ended or stale)


class _Relay:
    """Passes on the whole lines that a growing file gained."""

    def __init__(self, written: IO[str], on_line: Callable[[str], None]) -> None:
        self._written = written
        self._on_line = on_line
        self._begun = ""

    def pass_on(self) -> None:
        *whole, self._begun = (self._begun + self._written.read()).split("\n")
        for line in whole:
            self._on_line(line)


def _refuse_if_in_use(data: Path) -> None:
    began = time.monotonic()
    while (holder := DataLock.holder(data)) and DataLock.is_held(data):
        if time.monotonic() - began > _PATIENCE_WITH_THE_DYING_S:
            raise Refused(in_use(data, holder))
        time.sleep(_POLL_INTERVAL_S)


def _until_ready(
    supervisor: subprocess.Popen[bytes], data: Path, relay: _Relay, timeout_s: float
) -> Stack:
    began = time.monotonic()
    while time.monotonic() - began < timeout_s:
        ended = supervisor.poll() is not None
        stack = discover(data)
        relay.pass_on()
        if stack and stack.pid == supervisor.pid:
            return stack
        if ended:
            raise _REFUSALS.get(supervisor.returncode, Unavailable)(
                f"The stack did not start. The end of its log:\n{_tail_of(data)}"
            )
        time.sleep(_POLL_INTERVAL_S)
    raise Unavailable(f"The stack is not ready after {timeout_s:g} s:\n{_tail_of(data)}")


def _tail_of(data: Path) -> str:
    return tail(data / "logs" / "up.log")


def _end(supervisor: subprocess.Popen[bytes]) -> None:
    supervisor.terminate()
    try:
        supervisor.wait(60)
    except subprocess.TimeoutExpired:
        supervisor.kill()  # its guard ends the rest
        supervisor.wait()


def _folder_of(data: Path | None) -> Path | None:
    if data is not None:
        return data.expanduser().resolve()
    return last_started() or default_data().resolve()


def _until_released(data: Path, holder: int | None) -> None:
    began = time.monotonic()
    # A process that ends lets go of its lock a moment before it is gone.
    while DataLock.is_held(data) or (holder and is_alive(holder)):
        if time.monotonic() - began > _STOP_TIMEOUT_S:
            raise Unavailable(
                f"The stack on {data} does not end (process {DataLock.holder(data)}). "
                f"Its logs are in {data / 'logs'}."
            )
        time.sleep(_POLL_INTERVAL_S)
