"""The windows of many callers -> batches of one model, none larger than what is efficient.

Windows of like length go together, so that little is padding. Whoever asks for least is served first, and
small requests share a batch: a question waits for the batches that are being computed, never for the
thousands of texts behind them. When the model is idle nothing waits at all.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.models.tokens import Window
from pipeline.ports import Floats, Halves


class Seen(NamedTuple):
    """A window as the model sees it."""

    text: Floats
    """dimensions, normalised."""
    tokens: Halves
    """tokens x 64."""


@dataclass(slots=True, eq=False)
class Request:
    """One caller's windows, and what has become of them."""

    windows: Sequence[Window]
    done: asyncio.Future[list[Seen]]
    waiting: list[int] = field(init=False)
    """Which windows are still to do, the longest last."""
    seen: dict[int, Seen] = field(default_factory=dict[int, Seen])

    def __post_init__(self) -> None:
        self.waiting = sorted(range(len(self.windows)), key=lambda i: len(self.windows[i].ids))


class Place(NamedTuple):
    """A window of a batch, and whose it is."""

    request: Request
    window: int


def next_batch(
    requests: Sequence[Request], *, batch_tokens: int, padded: Callable[[int], int]
) -> list[Place]:
    """Takes the windows of one batch from those that wait: at most `batch_tokens` with the padding.

    The smallest request comes first. Others join it only if they fit as a whole: a batch that waits for a
    long text would be a slow one for the short.
    """
    batch = list[Place]()
    longest = 0
    for request in sorted(requests, key=lambda request: len(request.waiting)):
        taken = _fitting(
            request, beside=len(batch), longest=longest, limit=batch_tokens, padded=padded
        )
        if batch and taken < len(request.waiting):
            break
        indices = [request.waiting.pop() for _ in range(taken)]
        batch += [Place(request, index) for index in indices]
        longest = max([longest, *(padded(len(request.windows[i].ids)) for i in indices)])
    return batch


def _fitting(
    request: Request, *, beside: int, longest: int, limit: int, padded: Callable[[int], int]
) -> int:
    """How many of its windows fit into a batch that already has `beside`; one always fits an empty one."""
    if not request.waiting:
        return 0
    longest = max(longest, padded(len(request.windows[request.waiting[-1]].ids)))
    room = max(limit // longest, 0 if beside else 1)
    return min(max(room - beside, 0), len(request.waiting))


class Batches:
    """Runs windows through a function of batches, in threads of its own.

    Its methods belong to one event loop.
    """

    def __init__(
        self,
        run: Callable[[list[Window]], list[Seen]],
        *,
        workers: int,
        batch_tokens: int,
        padded: Callable[[int], int],
    ) -> None:
        """`run` blocks, and is called from `workers` threads at once."""
        self._run = run
        self._idle = workers
        self._batch_tokens = batch_tokens
        self._padded = padded
        self._requests = list[Request]()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="embedder")

    async def see(self, windows: Sequence[Window]) -> list[Seen]:
        """What the model sees of each window, in order. Raises what `run` raises of any of them."""
        request = Request(windows, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._start()
        return await request.done

    async def close(self) -> None:
        """Waits for the batches that are being computed; who still waits is cancelled."""
        for request in self._requests:
            request.done.cancel()
        self._requests.clear()
        await asyncio.to_thread(self._threads.shutdown)

    def _start(self) -> None:
        """Gives every idle worker a batch."""
        while self._idle:
            self._requests = [r for r in self._requests if r.waiting and not r.done.done()]
            batch = next_batch(self._requests, batch_tokens=self._batch_tokens, padded=self._padded)
            if not batch:
                return
            self._idle -= 1
            running = asyncio.get_running_loop().run_in_executor(
                self._threads, self._run, [place.request.windows[place.window] for place in batch]
            )
            running.add_done_callback(lambda done, batch=batch: self._finish(batch, done))

    def _finish(self, batch: list[Place], running: asyncio.Future[list[Seen]]) -> None:
        self._idle += 1
        error = running.exception()
        if error is not None:
            for place in batch:
                _settle(place.request, error)
        else:
            for place, seen in zip(batch, running.result(), strict=True):
                place.request.seen[place.window] = seen
                if len(place.request.seen) == len(place.request.windows):
                    _settle(place.request, None)
        self._start()


def _settle(request: Request, error: BaseException | None) -> None:
    if request.done.done():
        return
    if error is not None:
        request.done.set_exception(error)
    else:
        request.done.set_result([request.seen[i] for i in range(len(request.windows))])
