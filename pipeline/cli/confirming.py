"""Waits until what was published is stored, a bounded number of memories at a time.

Whoever publishes faster than the stages store is held back here, so that memory stays bounded.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipeline.cli.printing import tell
from pipeline.ending import ended
from pipeline.errors import Unavailable, Unusable

if TYPE_CHECKING:
    from producers.client import MemoryClient
    from producers.receipts import AnyReceipt, Receipt

Tally = Counter[str]
"""How many memories came to each outcome, or were `set_aside`."""

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
        on_progress: Callable[[int], None],
        on_set_aside: Callable[["AnyReceipt", Unusable], None],
        most: int = MOST,
    ) -> None:
        self.settled: Tally = Counter()
        """What became of all up to the first that is still waited for."""
        self._done = 0
        self._client = client
        self._patience_s = patience_s
        self._on_progress = on_progress
        self._on_set_aside = on_set_aside
        self._most = most
        self._waiting: deque[tuple[asyncio.Task[Tally], Callable[[], None]]] = deque()
        self._unconfirmed = 0
        self._news_at = asyncio.get_running_loop().time()
        self._wondered = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        # What has just been done still counts, however this ends.
        await asyncio.sleep(0)
        while self._waiting and _is_done(self._waiting[0][0]):
            self._settle_oldest()
        await ended(*[task for task, _ in self._waiting])

    async def add(self, receipts: "Sequence[Receipt]", on_settled: Callable[[], None]) -> None:
        """Follows these, too; returns when few enough are unconfirmed.

        Calls `on_settled` once these and all before them are done with.
        """
        batches = [receipts[i : i + _AT_ONCE] for i in range(0, len(receipts), _AT_ONCE)] or [()]
        for some in batches:
            self._unconfirmed += len(some)
            told = on_settled if some is batches[-1] else _nobody
            self._waiting.append((asyncio.create_task(self._follow(some)), told))
        while self._waiting and (self._unconfirmed > self._most or self._waiting[0][0].done()):
            await self._oldest()

    async def rest(self) -> None:
        """Returns when none is left."""
        while self._waiting:
            await self._oldest()

    async def _oldest(self) -> None:
        task, _ = self._waiting[0]
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
        self._settle_oldest()

    def _settle_oldest(self) -> None:
        task, on_settled = self._waiting.popleft()
        self.settled += task.result()
        on_settled()

    async def _follow(self, receipts: "Sequence[Receipt]") -> Tally:
        if not receipts:
            return Counter()
        done = 0

        def progressed(now_done: int) -> None:
            nonlocal done
            new, done = now_done - done, now_done
            if new:
                self._news_at, self._wondered = asyncio.get_running_loop().time(), False
                self._unconfirmed -= new
                self._done += new
                self._on_progress(self._done)

        outcomes = await self._client.stored(
            receipts,
            timeout_s=_FOR_EVER_S,
            on_progress=progressed,
            on_set_aside=self._on_set_aside,
        )
        return Counter(outcome or "set_aside" for outcome in outcomes)


def _is_done(task: asyncio.Task[Tally]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _nobody() -> None: ...
