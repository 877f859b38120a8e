"""The whole stack on this machine, in the foreground: parts first, then stages, until asked to stop.

A part whose address is given from outside is not started. The parts start side by side; the stages
start when all answer. Stopping goes the other way: stages, Valkey, PostgreSQL, Kafka.
"""

import asyncio
import errno
import signal
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.embedded.crew import Crew
from pipeline.embedded.guard import end_leftovers, leftovers
from pipeline.embedded.keeper import Progress
from pipeline.embedded.plan import Plan
from pipeline.embedded.state import DataLock, Stack, make_private, withdraw
from pipeline.errors import Refused, Unavailable

# Two Ctrl-C closer than this are one: some launchers pass on what the terminal also sends.
_ONE_KEYPRESS_S = 0.5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


async def run(
    plan: Plan,
    *,
    on_progress: Callable[[Progress], None],
    on_ready: Callable[[Stack], None] = lambda _: None,
) -> None:
    """`serve` until SIGINT, SIGTERM or SIGHUP; a second SIGINT ends everything at once."""
    until, at_once = asyncio.Event(), asyncio.Event()
    first_asked_at = 0.0

    def asked(number: int) -> None:
        nonlocal first_asked_at
        now = time.monotonic()
        if not until.is_set():
            first_asked_at = now
            until.set()
        elif number == signal.SIGINT and now - first_asked_at > _ONE_KEYPRESS_S:
            at_once.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked, number)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # unless started by `nohup`
        loop.add_signal_handler(signal.SIGHUP, asked, signal.SIGHUP)
    await serve(plan, on_progress=on_progress, on_ready=on_ready, until=until, at_once=at_once)


async def serve(
    plan: Plan,
    *,
    on_progress: Callable[[Progress], None],
    until: asyncio.Event,
    on_ready: Callable[[Stack], None] = lambda _: None,
    at_once: asyncio.Event | None = None,
) -> None:
    """Run the stack until `until` is set; nothing is left running when this returns or raises.

    `on_ready` is called once, when every part answers and the stages were started. `at_once` cuts
    the stop short: everything is killed. Raises Refused where the data folder or a given port is in
    use, Unavailable where a part cannot be had or does not start, or the disk is full.
    """
    plan = replace(plan, data=_made(plan.data))
    with _told_when_full(plan.data):
        await _serve_made(plan, on_progress, on_ready, until, at_once or asyncio.Event())


async def _serve_made(
    plan: Plan,
    on_progress: Callable[[Progress], None],
    on_ready: Callable[[Stack], None],
    until: asyncio.Event,
    at_once: asyncio.Event,
) -> None:
    lock = DataLock(plan.data)
    await lock.take()
    try:
        # Where even the guard was killed, parts may live on and hold their ports.
        if await asyncio.to_thread(leftovers, plan.data):
            await asyncio.to_thread(end_leftovers, plan.data)
        crew = Crew(plan, on_progress, lock)
        living = asyncio.create_task(crew.live(on_ready))
        try:
            await _first_of(until.wait(), living)
        finally:
            await _stop(crew, living, at_once)
    finally:
        withdraw(plan.data)
        lock.release()


@asynccontextmanager
async def running(plan: Plan, *, on_progress: Callable[[Progress], None]) -> AsyncGenerator[Stack]:
    """`serve` for the time of a block, which begins when the stack is ready. Raises as `serve` does."""
    until = asyncio.Event()
    ready: asyncio.Future[Stack] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(plan, on_progress=on_progress, on_ready=ready.set_result, until=until)
    )
    try:
        await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield ready.result()
    finally:
        until.set()
        await serving


async def _stop(crew: Crew, living: asyncio.Task[None], at_once: asyncio.Event) -> None:
    living.cancel()
    with suppress(asyncio.CancelledError, Exception):  # its error was raised already
        await living
    stopping = asyncio.create_task(crew.stop())
    await _first_of(at_once.wait(), stopping)
    if not stopping.done():
        crew.kill()
    await stopping


async def _first_of(event: Any, task: asyncio.Task[None]) -> None:
    """Until the event happens or the task is done; raises what the task raised."""
    waiting = asyncio.ensure_future(event)
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        task.result()


@contextmanager
def _told_when_full(data: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise Unavailable(f"{data} takes nothing more: {error}.") from error


def _made(data: Path) -> Path:
    data = data.expanduser().resolve()
    try:
        make_private(data)
        make_private(data / "qdrant")
    except OSError as error:
        raise Refused(f"The data folder {data} cannot be used: {error}. Give another.") from error
    return data
