"""Tasks that are not wanted any more, and whoever started them does not leave before they do."""

import asyncio
from typing import Any


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
