"""Whose question is answered next: one user's never take all the workers.

A user with more questions than a share of the workers waits for himself, and others pass him by. Who has
too many waiting is told so at once: what waits is held in this process.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

from pipeline.errors import Unavailable


@dataclass(slots=True)
class _Line:
    """One user's questions."""

    free: asyncio.Semaphore
    under_way: int = 0


class Turns:
    """Gives each question its turn, first come first served among those of one user, and among users."""

    def __init__(self, workers: int, share: int, most_under_way: int) -> None:
        """`share` of the `workers` is one user's at most, and so are `most_under_way` questions in all."""
        self._workers = asyncio.Semaphore(workers)
        self._share, self._most_under_way = share, most_under_way
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def of(self, user_id: str | None) -> AsyncGenerator[None]:
        """Enters when it is the question's turn; without a user it waits for a worker alone.

        Raises Unavailable where too many of the user's questions are under way. May be cancelled.
        """
        async with self._line(user_id) as free, free, self._workers:
            yield

    @asynccontextmanager
    async def _line(
        self, user_id: str | None
    ) -> AsyncGenerator[asyncio.Semaphore | nullcontext[None]]:
        if user_id is None:
            yield nullcontext()
            return
        line = self._lines.setdefault(user_id, _Line(asyncio.Semaphore(self._share)))
        if line.under_way >= self._most_under_way:
            raise Unavailable(
                f"{line.under_way:,} questions of this user are under way: "
                "ask fewer at a time, or try again later."
            )
        line.under_way += 1
        try:
            yield line.free
        finally:
            line.under_way -= 1
            if not line.under_way:
                del self._lines[user_id]

    def __len__(self) -> int:
        """Users with questions under way."""
        return len(self._lines)
