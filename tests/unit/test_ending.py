"""Whoever is cancelled takes along what it has started, and is cancelled itself."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.app.running import together
from pipeline.chaos import own_stack
from pipeline.ending import cancelled, ended, unless, within
from pipeline.errors import Refused
from pipeline.kafka.connection import KafkaConnection
from pipeline.sources.mem0 import Rules
from producers import mem0_poller


class Work:
    """Goes on for ever, unless it is cancelled; and takes its time to end."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), False

    async def go_on(self, *_: Any, **__: Any) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.ended = True


async def poll(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mem0_poller, "_sessions", work.go_on)
    opening: Any = None
    await mem0_poller.poll(
        opening,
        KafkaConnection("nowhere:1"),
        "memory",
        interval_s=1,
        rules=Rules(),
        until=asyncio.Event(),
    )


async def prepare(work: Work, _: pytest.MonkeyPatch) -> None:
    await unless(asyncio.Event(), work.go_on())


async def go_on_for_a_time(work: Work, _: pytest.MonkeyPatch) -> None:
    await within(60, work.go_on())


async def run_together(work: Work, _: pytest.MonkeyPatch) -> None:
    await together([work.go_on()], asyncio.Event())


async def start_a_stack(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_stack, "serve", work.go_on)
    proxies: Any = defaultdict(lambda: SimpleNamespace(port=1))
    async with own_stack.serving(Path("nowhere"), 1, proxies, own_stack.Signs()):
        pass


Start = Callable[[Work, pytest.MonkeyPatch], Awaitable[None]]


@pytest.mark.parametrize("start", [poll, prepare, go_on_for_a_time, run_together, start_a_stack])
async def test_nothing_outlives_whoever_was_cancelled(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()

    async def starting() -> None:
        await start(work, monkeypatch)

    task = asyncio.create_task(starting())
    await work.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_a_time_that_was_given_is_kept_by_what_takes_longer_to_end() -> None:
    work, tidied = Work(), asyncio.Event()

    async def go_on() -> None:
        try:
            await work.go_on()
        finally:
            await tidied.wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await within(0.01, go_on())
    assert not work.ended
    tidied.set()
    await asyncio.sleep(0.05)
    assert work.ended


@pytest.mark.parametrize("end", [ended, cancelled])
async def test_a_cancellation_of_ours_is_not_taken_for_theirs(
    end: Callable[[asyncio.Task[None]], Awaitable[None]],
) -> None:
    work = Work()
    theirs = asyncio.create_task(work.go_on())
    await work.begun.wait()
    ours = asyncio.ensure_future(end(theirs))
    await asyncio.sleep(0)
    ours.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ours
    with pytest.raises(asyncio.CancelledError):
        await theirs


async def test_whoever_ends_a_task_hears_what_it_has_failed_with() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    failing = asyncio.create_task(fail())
    await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await cancelled(failing)


async def test_a_poller_that_ends_by_itself_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> None:
        raise Refused("another project's key")

    work: Any = Work()
    work.go_on = refuse
    with pytest.raises(Refused, match="another project"):
        await poll(work, monkeypatch)
