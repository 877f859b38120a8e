"""The Mem0 poller for the time of a block, and what its cycles find, a line a user."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pipeline.cli.printing import on_one_line, show

if TYPE_CHECKING:
    from pipeline.kafka.connection import KafkaConnection
    from pipeline.sources.mem0 import Rules
    from pipeline.sources.mem0_watching import Tally
    from producers.mem0_poller import Opening
    from schemas.mem0 import Mem0CycleEnded


class Found:
    """The cycles that found something, one after the other."""

    def __init__(self, poller: "asyncio.Task[None]", cycles: "asyncio.Queue[Tally]") -> None:
        self._poller, self._cycles = poller, cycles

    async def next(self) -> "Tally":
        """What the next cycle that finds something finds. Raises what ended the poller."""
        finding = asyncio.create_task(self._cycles.get())
        try:
            await asyncio.wait([finding, self._poller], return_when=asyncio.FIRST_COMPLETED)
            if not finding.done():
                self._poller.result()
            tally = finding.result()
        finally:
            finding.cancel()
        _show(tally)
        return tally


@asynccontextmanager
async def polling(
    opening: "Opening",
    connection: "KafkaConnection",
    prefix: str,
    *,
    interval_s: float,
    rules: "Rules",
) -> AsyncGenerator[Found]:
    """Polls to the end of the block."""
    from producers.mem0_poller import poll

    until, cycles = asyncio.Event(), asyncio.Queue["Tally"]()

    def telling(_ended: "Mem0CycleEnded", tally: "Tally", _users: Counter[str]) -> None:
        if tally.total:
            cycles.put_nowait(tally)

    poller = asyncio.create_task(
        poll(
            opening,
            connection,
            prefix,
            interval_s=interval_s,
            rules=rules,
            until=until,
            telling=telling,
        )
    )
    try:
        yield Found(poller, cycles)
    finally:
        until.set()
        await asyncio.wait([poller])


def _show(tally: "Tally") -> None:
    from producers.mem0_poller import in_words

    for user in sorted(user for user in tally.by_user if user is not None):
        show(f"  {on_one_line(user)}: {in_words(tally.by_user[user])}")
