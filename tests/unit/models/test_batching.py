"""The windows of many callers -> batches."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.models.batching import Batches, Request, Seen, next_batch
from pipeline.models.tokens import Window


def window(length: int) -> Window:
    return Window(ids=np.arange(length), telling=np.arange(0))


def request(*lengths: int) -> Request:
    done: asyncio.Future[list[Seen]] = asyncio.get_running_loop().create_future()
    return Request([window(length) for length in lengths], done)


def sixteens(tokens: int) -> int:
    return -(-tokens // 16) * 16


def batches(requests: Sequence[Request], batch_tokens: int) -> list[list[int]]:
    """All batches that the requests give, as lengths."""
    made = list[list[int]]()
    while batch := next_batch(requests, batch_tokens=batch_tokens, padded=sixteens):
        made.append([len(place.request.windows[place.window].ids) for place in batch])
    return made


async def test_like_lengths_go_together_the_longest_first() -> None:
    assert batches([request(5, 60, 7, 64, 6)], 128) == [[64, 60], [7, 6, 5]]


async def test_no_batch_is_larger_than_wanted_with_its_padding() -> None:
    for batch in batches([request(*range(1, 200)), request(3, 90)], 1024):
        assert len(batch) * sixteens(max(batch)) <= 1024


async def test_a_window_larger_than_a_batch_goes_alone() -> None:
    assert batches([request(300, 10)], 256) == [[300], [10]]


async def test_the_smallest_request_is_first_and_small_ones_share() -> None:
    large = request(*[64] * 10)
    assert batches([large, request(8), request(9, 9)], 256)[:2] == [[8, 9, 9], [64] * 4]


async def test_a_request_that_does_not_fit_as_a_whole_does_not_join() -> None:
    assert batches([request(250, 250), request(8)], 512) == [[8], [250, 250]]


class Model:
    """Sees a window as its length; remembers its batches; can be held up."""

    def __init__(self) -> None:
        self.batches = list[list[int]]()
        self.free = threading.Event()
        self.free.set()

    def __call__(self, windows: Sequence[Window]) -> list[Seen]:
        self.batches.append([len(window.ids) for window in windows])
        self.free.wait(10)
        if any(len(window.ids) == 13 for window in windows):
            raise RuntimeError("thirteen")
        return [
            Seen(np.full(3, len(window.ids), np.float32), np.zeros((0, 64), np.float16))
            for window in windows
        ]


def running(model: Model, *, workers: int = 1) -> Batches:
    return Batches(model, workers=workers, batch_tokens=64, padded=sixteens)


async def lengths(batches: Batches, *of: int) -> list[int]:
    return [int(seen.text[0]) for seen in await batches.see([window(length) for length in of])]


async def test_the_order_is_kept() -> None:
    queue = running(Model(), workers=2)
    assert await lengths(queue, 5, 40, 7, 60, 1) == [5, 40, 7, 60, 1]
    await queue.close()


async def test_callers_that_wait_share_a_batch() -> None:
    model = Model()
    model.free.clear()
    queue = running(model)
    waiting = [asyncio.create_task(lengths(queue, length)) for length in (16, 3, 4, 5)]
    await asyncio.sleep(0.05)
    model.free.set()
    assert await asyncio.gather(*waiting) == [[16], [3], [4], [5]]
    assert model.batches == [[16], [3, 4, 5]]
    await queue.close()


async def test_a_question_overtakes_what_waits() -> None:
    model = Model()
    model.free.clear()
    queue = running(model)
    large = asyncio.create_task(lengths(queue, *[64] * 20))
    await asyncio.sleep(0.05)
    small = asyncio.create_task(lengths(queue, 8))
    await asyncio.sleep(0.05)
    model.free.set()
    assert await small == [8]
    assert await large == [64] * 20
    assert model.batches[1] == [8]
    await queue.close()


async def test_an_error_reaches_its_caller_and_the_next_one_is_served() -> None:
    queue = running(Model())
    with pytest.raises(RuntimeError, match="thirteen"):
        await lengths(queue, 60, 13, 60)
    assert await lengths(queue, 14) == [14]
    await queue.close()


async def test_what_nobody_awaits_any_more_is_not_computed() -> None:
    model = Model()
    model.free.clear()
    queue = running(model)
    given_up = asyncio.create_task(lengths(queue, *[64] * 20))
    await asyncio.sleep(0.05)
    given_up.cancel()
    await asyncio.sleep(0)
    model.free.set()
    assert await lengths(queue, 8) == [8]
    assert model.batches == [[64], [8]]
    await queue.close()


async def test_closing_waits_for_the_batch_and_cancels_who_waits() -> None:
    model = Model()
    queue = running(model)
    model.free.clear()
    first = asyncio.create_task(lengths(queue, *[64] * 3))
    await asyncio.sleep(0.05)
    model.free.set()
    await queue.close()
    with pytest.raises(asyncio.CancelledError):
        await first
