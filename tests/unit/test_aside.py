"""What is read aside: all of it, in order, and in slices that are short."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pipeline.aside import SLICE_CHARS, in_slices, slices


@given(st.lists(st.integers(0, 2 * SLICE_CHARS), max_size=40))
def test_slices_hold_everything_in_order_and_no_more_than_is_short(sizes: list[int]) -> None:
    made = list(slices(sizes, int))
    assert [size for some in made for size in some] == sizes
    assert all(some for some in made)
    assert all(len(some) == 1 or sum(some) <= SLICE_CHARS for some in made)


async def test_what_is_made_of_the_slices_is_put_together() -> None:
    calls: list[int] = []

    def lengths(some: Sequence[str]) -> list[int]:
        calls.append(len(some))
        return [len(text) for text in some]

    texts = ["x" * 20_000, "y" * 20_000, "z"]
    assert await in_slices(lengths, texts, len) == [20_000, 20_000, 1]
    assert calls == [1, 2]
