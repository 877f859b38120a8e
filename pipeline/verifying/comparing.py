"""Two stores' fingerprints in, their differences out: an ordered merge, a page of each at a time.

Both tell their pages in the order of the keys, so memory stays constant however much they hold.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args
from uuid import UUID

from pipeline.ports import Fingerprint, Fingerprints

PAGE = 1_024
"""Fingerprints asked for at once."""

Kind = Literal[
    "missing_in_index",
    "missing_in_record",
    "stale_in_index",
    "stale_in_record",
    "content_differs",
    "resurrected_in_index",
    "resurrected_in_record",
    "watermark_differs",
    "tier_differs",
    "missing_in_record_but_in_log",
    "content_differs_from_log",
]
KINDS: Sequence[Kind] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that the stores do not agree about."""

    key: UUID
    kind: Kind
    record: Fingerprint | None
    index: Fingerprint | None
    lives: tuple[int, int] | None = None
    """Where it is the tier: the lives of record and index, whose tiers are told. They change by themselves."""


@dataclass(frozen=True, slots=True)
class Window:
    """What both stores hold between two keys."""

    record: Sequence[Fingerprint]
    index: Sequence[Fingerprint]

    @property
    def last(self) -> UUID:
        """The greatest key."""
        return max(told[-1].key for told in (self.record, self.index) if told)


def difference(record: Fingerprint | None, index: Fingerprint | None) -> Difference | None:
    """What one key's two fingerprints differ in; None where they agree."""
    if record == index:
        return None
    one = record or index
    assert one is not None
    return Difference(one.key, _kind(record, index), record, index)


def _kind(record: Fingerprint | None, index: Fingerprint | None) -> Kind:
    if (record is not None and record.watermark) or (index is not None and index.watermark):
        return "watermark_differs"
    if record is None:
        return "missing_in_record"
    if index is None:
        return "missing_in_index"
    if record.known.stamp == index.known.stamp:
        return _kind_of_equals(record, index)
    record_is_newer = record.known.stamp > index.known.stamp
    newer, older = (record, index) if record_is_newer else (index, record)
    if newer.known.forgotten and not older.known.forgotten:
        return "resurrected_in_index" if record_is_newer else "resurrected_in_record"
    return "stale_in_index" if record_is_newer else "stale_in_record"


def _kind_of_equals(record: Fingerprint, index: Fingerprint) -> Kind:
    if record.known.forgotten == index.known.forgotten:
        return "content_differs"
    return "resurrected_in_index" if record.known.forgotten else "resurrected_in_record"


def differences(
    record: Iterable[Fingerprint], index: Iterable[Fingerprint]
) -> Sequence[Difference]:
    """Where the two differ, in the order of the keys."""
    in_record = {each.key: each for each in record}
    in_index = {each.key: each for each in index}
    if in_record == in_index:
        return []
    keys = sorted(in_record.keys() | in_index.keys())
    found = (difference(in_record.get(key), in_index.get(key)) for key in keys)
    return [each for each in found if each is not None]


def tier_differences(
    record: Iterable[Fingerprint], index: Iterable[Fingerprint]
) -> Sequence[Difference]:
    """Where the two hold the same state, but not what its use has made of it; in the order of the keys."""
    in_index = {each.key: each for each in index}
    found = (_tier_difference(each, in_index.get(each.key)) for each in record)
    return [each for each in found if each is not None]


def _tier_difference(record: Fingerprint, index: Fingerprint | None) -> Difference | None:
    if index is None or record != index or record.life is None or index.life is None:
        return None
    if record.life == index.life:
        return None
    return Difference(record.key, "tier_differs", record, index, (record.life, index.life))


async def windows(record: Fingerprints, index: Fingerprints) -> AsyncGenerator[Window]:
    """All that both hold, cut at the same keys. A page of each is asked for ahead."""
    async with aclosing(_pages(record)) as of_record, aclosing(_pages(index)) as of_index:
        left, right = await _next(of_record), await _next(of_index)
        while left or right:
            end = min(told[-1].key for told in (left, right) if told)
            (mine, left), (its, right) = _cut(left, end), _cut(right, end)
            yield Window(mine, its)
            left = left or await _next(of_record)
            right = right or await _next(of_index)


def _cut(
    told: Sequence[Fingerprint], end: UUID
) -> tuple[Sequence[Fingerprint], Sequence[Fingerprint]]:
    at = next((place for place, each in enumerate(told) if each.key > end), len(told))
    return told[:at], told[at:]


async def _next(pages: AsyncGenerator[Sequence[Fingerprint]]) -> Sequence[Fingerprint]:
    try:
        return await anext(pages)
    except StopAsyncIteration:
        return ()


async def _pages(store: Fingerprints) -> AsyncGenerator[Sequence[Fingerprint]]:
    asked = asyncio.create_task(_page(store, None))
    try:
        while page := await asked:
            if len(page) == PAGE:
                asked = asyncio.create_task(_page(store, page[-1].key))
            yield page
            if len(page) < PAGE:
                return
    finally:
        asked.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await asked


async def _page(store: Fingerprints, after: UUID | None) -> Sequence[Fingerprint]:
    page = await store.page(after, PAGE)
    keys = [*([after] if after else []), *(each.key for each in page)]
    if any(one >= other for one, other in pairwise(keys)):
        raise AssertionError("a store told its keys out of order: nothing can be compared")
    return page
