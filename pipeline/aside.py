"""What keeps the processor busy for long: in slices, on a thread of its own.

All of it shares the one thread: who asks for much waits for others who do, and nobody else waits. The slices
are short, so that everybody's turn comes soon, and that what nobody waits for any more ends soon.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

SLICE_CHARS: Final = 32_000
"""Of texts, in one slice: some hundredths of a second."""
_LEAST_CHARS: Final = 100
"""What one item counts at least."""
_THREAD: Final = ThreadPoolExecutor(1, thread_name_prefix="aside")


async def aside(work: Callable[[], R]) -> R:
    """Does what cannot be sliced. Cancelled before its turn it is never begun."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work)


async def in_slices(
    work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T], chars: Callable[[T], int]
) -> list[R]:
    """What `work` makes of each slice, one after the other. Cancelled it ends with the slice that it is at."""
    made: list[R] = []
    for some in slices(items, chars):
        made += await aside(lambda some=some: work(some))
    return made


def slices(items: Sequence[T], chars: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """The items in order, as many at a time as have SLICE_CHARS together; one at least."""
    begin = held = 0
    for place, item in enumerate(items):
        own = max(chars(item), _LEAST_CHARS)
        if held and held + own > SLICE_CHARS:
            yield items[begin:place]
            begin, held = place, 0
        held += own
    if held:
        yield items[begin:]
