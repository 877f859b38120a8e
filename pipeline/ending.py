"""Tasks that are not wanted any more, and whoever started them does not leave before they do."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_leaving: set["asyncio.Task[Any]"] = set()
"""The loop itself keeps no hold of a task."""


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """Cancels tasks and returns when they have ended; what came of them, they tell themselves.

    Whoever is cancelled meanwhile is told so, unlike with a `suppress(CancelledError)` around an await.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Ends a task that runs for ever. Raises what it has failed with before."""
    await ended(task)
    if not task.cancelled():
        task.result()


async def unless(until: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result, or None when `until` is set before there is one: then the work is cancelled."""
    task = asyncio.create_task(work)
    asked = asyncio.create_task(until.wait())
    try:
        await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(task, asked)
    return None if task.cancelled() else task.result()


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """The result. Raises TimeoutError when `timeout_s` have passed, however long the work takes to end.

    It is cancelled then and tidies up by itself: who has given a time does not wait for that.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task], timeout=timeout_s)
    except asyncio.CancelledError:
        await ended(task)
        raise
    if task.done():
        return task.result()
    task.cancel()
    _leaving.add(task)
    task.add_done_callback(_left)
    raise TimeoutError


def _left(task: "asyncio.Task[Any]") -> None:
    _leaving.discard(task)
    if not task.cancelled():
        # Nobody is there any more whom it could be told.
        task.exception()
