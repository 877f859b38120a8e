"""Keeps a process alive: started, watched, started again when it dies, stopped when asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pipeline.embedded.logged import last_reason
from pipeline.embedded.process import Command, kill_group, manner, size_of, spawn, tail
from pipeline.errors import PipelineError, Unavailable

EX_CONFIG = 78  # sysexits.h: the process cannot run as it is configured
_EX_OSERR = 71  # sysexits.h: the system could not start it
_PROBE_INTERVAL_S = 0.05
_MANY = 1_000  # lines: a reason may stand above what libraries say at the end
_LONG_ENOUGH_S = 60.0  # a process that lived this long starts with the shortest pause again

# "ready" is a part that answers, "running" a stage, which nobody asks; "refused" is not tried again.
Phase = Literal[
    "preparing", "starting", "running", "ready", "died", "refused", "stopping", "stopped"
]


@dataclass(frozen=True)
class Progress:
    """What happened to one part, for people: `detail` is free text."""

    part: str
    phase: Phase
    detail: str = ""


def growing(first_s: float, most_s: float) -> Iterator[float]:
    """Pauses, each twice the one before, up to `most_s`."""
    pause_s = first_s
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, most_s)


class Keeper:
    """Keeps one process alive until told to stop.

    `ready` probes whether it answers; None means that to run is to be ready. `tell` takes a phase and
    its detail, `changed` is called with every new pid, and where it halts. A process that dies `attempts` times before
    its first readiness, or is not ready after `patience_s`, fails `first_ready`; afterwards it is
    started again for ever, on the same command line, after growing pauses.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        *,
        tell: Callable[[Phase, str], None],
        changed: Callable[[], None] = lambda: None,
        ready: Callable[[], Awaitable[bool]] | None = None,
        pauses_s: tuple[float, float] = (0.5, 15.0),
        attempts: int = 3,
        patience_s: float = 120.0,
    ) -> None:
        self.name = name
        self.pid: int | None = None
        self.halted = ""
        """What it said last, where it cannot run as configured: it is not started again."""
        self._command = command
        self._tell = tell
        self._changed = changed
        self._ready = ready
        self._pauses_s = pauses_s
        self._attempts = attempts
        self._patience_s = patience_s
        self._process: asyncio.subprocess.Process | None = None
        self._log_began = 0
        """How long its log was when this process of it was started."""
        self._stop_asked = asyncio.Event()
        self._first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._first_ready.add_done_callback(_retrieved)  # whoever waited may have left
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin; the task ends when the process is no longer kept, with an error only by a bug."""
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.name}")
        self._task.add_done_callback(self._ended)
        return self._task

    async def first_ready(self) -> None:
        """Until it answers for the first time; raises Unavailable with the end of its log."""
        await asyncio.shield(self._first_ready)

    async def stop(self) -> None:
        """Ask it to end, wait, kill it after its time; returns when it is gone."""
        self._stop_asked.set()
        if self._task is None:
            return
        if self.pid is not None:
            self._tell("stopping", "")
            self._signal(self._command.stop_signal)
        try:
            async with asyncio.timeout(self._command.stop_timeout_s):
                await self._gone(self._task)
            manner_of_end = ""
        except TimeoutError:
            self.kill()
            await self._gone(self._task)
            manner_of_end = f"killed after {self._command.stop_timeout_s:g} s"
        self._tell("stopped", manner_of_end)

    def kill(self) -> None:
        """End the process and what it started, at once."""
        self._stop_asked.set()
        if self.pid is not None:
            kill_group(self.pid)

    async def _gone(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait({task})
        # Where a whole loop is being cancelled, the task is, too, and the process lives on.
        if self._process is not None:
            await self._process.wait()

    async def _keep(self) -> None:
        pauses_s = growing(*self._pauses_s)
        deaths_before_ready = 0
        while not self._stop_asked.is_set():
            began = time.monotonic()
            code = await self._live()
            if self._stop_asked.is_set():
                break
            if code == EX_CONFIG:
                reason = last_reason(self._said(lines=_MANY).splitlines())
                self.halted = reason or self._said(lines=1)
                self._changed()
                unsaid = f"it cannot run as configured\n{self._end_of_log()}"
                self._give_up(f"{reason}\nIts log is {self._command.log}" if reason else unsaid)
                break
            deaths_before_ready += not self._first_ready.done()
            if deaths_before_ready >= self._attempts:
                self._give_up(f"{manner(code)}\n{self._end_of_log()}")
                break
            if time.monotonic() - began > _LONG_ENOUGH_S:
                pauses_s = growing(*self._pauses_s)
            await self._pause(next(pauses_s), code)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._first_ready.done():
            return
        if not task.cancelled() and (bug := task.exception()):
            self._first_ready.set_exception(bug)
        else:
            self._first_ready.cancel()

    async def _live(self) -> int:
        """One life of the process, from its start to its exit code."""
        began = time.monotonic()
        self._tell("starting", "")
        self._log_began = size_of(self._command.log)
        try:
            process = await self._spawn()
        except OSError as error:
            self._tell("died", f"the system cannot start it: {error}")
            return _EX_OSERR
        exited = asyncio.create_task(process.wait())
        if self._stop_asked.is_set():  # asked while it was being started
            self._signal(self._command.stop_signal)
        while not exited.done():
            if await self._answers():
                self._became_ready(time.monotonic() - began)
                break
            if self._out_of_patience(began):
                self._give_up(f"no answer for {self._patience_s:g} s\n{self._end_of_log()}")
                self.kill()
            await asyncio.wait({exited}, timeout=_PROBE_INTERVAL_S)
        code = await exited
        self._process = self.pid = None
        self._changed()
        return code

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._process = await spawn(self._command)
        self.pid = self._process.pid
        self._changed()
        return self._process

    async def _answers(self) -> bool:
        try:
            return self._ready is None or await self._ready()
        except PipelineError as error:  # it answers, and what it says will not change
            self._give_up(str(error))
            self.kill()
            return False

    def _became_ready(self, took_s: float) -> None:
        if not self._first_ready.done():
            self._first_ready.set_result(None)
        if self._ready:
            self._tell("ready", f"in {took_s:.1f} s")
        else:
            self._tell("running", f"process {self.pid}")

    def _out_of_patience(self, began: float) -> bool:
        return not self._first_ready.done() and time.monotonic() - began > self._patience_s

    def _give_up(self, why: str) -> None:
        self._stop_asked.set()
        self._tell("refused", why)
        if not self._first_ready.done():
            self._first_ready.set_exception(Unavailable(f"{self.name} does not start: {why}"))

    async def _pause(self, pause_s: float, code: int) -> None:
        self._tell("died", f"{manner(code)}; starts again in {pause_s:g} s")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop_asked.wait(), pause_s)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _end_of_log(self) -> str:
        return f"The end of {self._command.log}:\n{self._said()}"

    def _said(self, lines: int = 15) -> str:
        """The end of what the process of this start wrote, and none before it."""
        return tail(self._command.log, lines=lines, since=self._log_began)


def _retrieved(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
