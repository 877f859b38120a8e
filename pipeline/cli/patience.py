"""What is waited for, told once the wait is long enough to wonder."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pipeline.cli.printing import errors, interactive, tell
from pipeline.ending import cancelled

WONDER_AFTER_S = 1.0


@asynccontextmanager
async def saying(
    what: str, *, after_s: float = WONDER_AFTER_S, spins: bool = True
) -> AsyncGenerator[None]:
    """Tells `what` where the block takes longer than `after_s`; in a terminal it spins and goes away.

    Not with `spins` where something else moves already: a terminal shows one such thing at a time.
    """
    telling = asyncio.create_task(_say(what, after_s, spins=spins and interactive()))
    try:
        yield
    finally:
        await cancelled(telling)


async def _say(what: str, after_s: float, *, spins: bool) -> None:
    await asyncio.sleep(after_s)
    if not spins:
        tell(what, style="dim")
        return
    with errors().status(what):
        await asyncio.Event().wait()
