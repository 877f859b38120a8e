"""Waits until what was published is stored, a bounded number of memories at a time.

Whoever publishes faster than the stages store is held back here, so that memory stays bounded.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.cli.printing import tell
from pipeline.errors import Unavailable, Unusable

if TYPE_CHECKING:
    from producers.client import MemoryClient
    from producers.receipts import AnyReceipt, Receipt

MOST = 5_000
_AT_ONCE = 500
"""Receipts that are asked about in one question."""
WONDER_AFTER_S = 10.0
"""Silence that is told of, once."""
_FOR_EVER_S = 7 * 24 * 3_600.0


class Confirming:
    """Follows receipts. Raises Unavailable when for `patience_s` nothing at all was stored."""

    def __init__(
        self,
        client: "MemoryClient",
        *,
        patience_s: float,
        on_progress: Callable[[int, int], None],
        on_set_aside: Callable[["AnyReceipt", Unusable], None],
        most: int = MOST,
    ) -> None:
        self.stored = 0
        self.set_aside = 0
        self._client = client
        self._patience_s = patience_s
        self._on_progress = on_progress
        self._on_set_aside = on_set_aside
        self._most = most
        self._waiting: deque[asyncio.Task[None]] = deque()
        self._unconfirmed = 0
        self._news_at = asyncio.get_running_loop().time()
        self._wondered = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    async def add(self, receipts: "Sequence[Receipt]") -> None:
        """Follows these, too; returns when few enough are unconfirmed."""
        for start in range(0, len(receipts), _AT_ONCE):
            some = receipts[start : start + _AT_ONCE]
            self._unconfirmed += len(some)
            self._waiting.append(asyncio.create_task(self._follow(some)))
        while self._unconfirmed > self._most and self._waiting:
            await self._oldest()

    async def rest(self) -> None:
        """Returns when none is left."""
        while self._waiting:
            await self._oldest()

    async def _oldest(self) -> None:
        task = self._waiting[0]
        loop = asyncio.get_running_loop()
        while not task.done():
            await asyncio.wait({task}, timeout=1.0)
            silent_s = loop.time() - self._news_at
            if silent_s > WONDER_AFTER_S and not self._wondered:
                self._wondered = True
                tell(
                    f"Nothing was stored for {WONDER_AFTER_S:g} s; this waits {self._patience_s:g} s. "
                    "Ctrl-C loses nothing, `hybrid-memory status` shows what is down or behind."
                )
            if silent_s > self._patience_s and not task.done():
                raise Unavailable(
                    f"Nothing was stored for {self._patience_s:g} s; {self._unconfirmed} accepted "
                    "memories are on their way and are not lost. `hybrid-memory status` shows which "
                    "stage is behind."
                )
        self._waiting.popleft().result()

    async def _follow(self, receipts: "Sequence[Receipt]") -> None:
        done = 0

        def progressed(now_done: int) -> None:
            nonlocal done
            new, done = now_done - done, now_done
            if new:
                self._news_at, self._wondered = asyncio.get_running_loop().time(), False
                self._unconfirmed -= new
                self.stored += new
                self._on_progress(self.stored, self.set_aside)

        def put_aside(receipt: "AnyReceipt", error: Unusable) -> None:
            self.set_aside += 1
            self.stored -= 1  # it counts as done with, too
            self._on_set_aside(receipt, error)

        await self._client.stored(
            receipts, timeout_s=_FOR_EVER_S, on_progress=progressed, on_set_aside=put_aside
        )
