"""Records whose headers have names that are no UTF-8 are read like any other.

Kafka allows them; aiokafka raises in the middle of their batch, and reads nothing that stands behind: one
such record would stop its topic. So where a batch fails that way, it is read once more from the record on,
by aiokafka's own reader in Python, over bytes that spell such a name as `caf\\xe9`. All else is as it was.

This is the one place that reaches into aiokafka, whose version is held for it.
"""

from collections.abc import Iterator
from struct import unpack_from
from typing import Any, SupportsIndex

from aiokafka.consumer import fetcher as _fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record import default_records as _default_records
from aiokafka.record.memory_records import MemoryRecords

_IN_PYTHON: Any = getattr(_default_records, "_DefaultRecordBatchPy")  # noqa: B009
_WITH_HEADERS = 2
"""From this version of the format on, records have headers."""


def read_any_name() -> None:
    """From now on, all consumers of this process read past such a name. Safe to repeat."""
    fetcher: Any = _fetcher
    fetcher.MemoryRecords = _Records


class _Records:
    """What was fetched of a partition: aiokafka's MemoryRecords, as its fetcher uses them."""

    def __init__(self, fetched: bytes) -> None:
        self._fetched = fetched
        self._records: Any = MemoryRecords(fetched)

    def has_next(self) -> bool:
        return self._records.has_next()

    def size_in_bytes(self) -> int:
        return self._records.size_in_bytes()

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None or batch.magic < _WITH_HEADERS:
            return batch
        return _Batch(batch, self._fetched)


class _Batch:
    """A batch, which begins again where the name of a header is no UTF-8."""

    def __init__(self, batch: Any, fetched: bytes) -> None:
        self._batch, self._fetched = batch, fetched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = -1
        try:
            for record in self._batch:
                read = record.offset
                yield record
        except (UnicodeDecodeError, CorruptRecordException) as error:
            # Without its compiled part, aiokafka names the error anew.
            if not isinstance(error.__cause__ or error, UnicodeDecodeError):
                raise
            yield from (each for each in self._anew() if each.offset > read)

    def _anew(self) -> Iterator[Any]:
        batch = _IN_PYTHON(_bytes_of(self._fetched, self._batch.base_offset))
        batch._maybe_uncompress()
        batch._buffer = _Spelt(batch._buffer)
        return batch


class _Spelt(bytearray):
    """Bytes whose parts decode, whatever they are."""

    def __getitem__(self, part: SupportsIndex | slice) -> Any:
        got = super().__getitem__(part)
        return _Spelt(got) if isinstance(got, bytearray) else got

    def decode(self, encoding: str = "utf-8", errors: str = "") -> str:  # noqa: ARG002
        return super().decode(encoding, "backslashreplace")


def _bytes_of(fetched: bytes, base_offset: int) -> memoryview:
    """The batch that begins at an offset: each one tells its own, and how many bytes follow."""
    begin = 0
    while True:
        offset, length = unpack_from(">qi", fetched, begin)
        end = begin + 12 + length
        if offset == base_offset:
            return memoryview(fetched)[begin:end]
        begin = end
