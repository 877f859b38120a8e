"""Batches of records are read as somebody wrote them, whatever is in them, and stop nobody.

aiokafka's reader is ours but for two things. Kafka allows headers whose names are no UTF-8; aiokafka raises
in the middle of their batch, and reads nothing that stands behind: one such record would stop its topic. So
where a batch fails that way, it is read once more from the record on, by aiokafka's own reader in Python,
over bytes that spell such a name as `caf\\xe9`.

And a few bytes can unpack to gigabytes. A batch of more than anybody would send is not unpacked: one record
without anything in it stands where it ends, and says so. Of what one fetch has brought, no more is unpacked
than some such batches: the rest is fetched again, once these are done with.

This is the one place that reaches into aiokafka's reading, whose version is held for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import pack, unpack_from
from typing import Any, SupportsIndex

import structlog
from aiokafka.consumer import fetcher as _fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record import default_records as _default_records
from aiokafka.record.memory_records import MemoryRecords

from pipeline.kafka.records import Unread
from pipeline.kafka.unpacking import CODECS, TooLarge, unpacked

log = structlog.get_logger(__name__)

MOST_UNPACKED_BYTES = 8 * 1024 * 1024
"""Of one batch. Ours are a quarter of a megabyte, or one message of less than four; other clients' are not
beyond one, unless they were told to."""
MOST_FETCHED_BYTES = 8 * 1024 * 1024
"""Of the batches of one partition that were fetched at once: then the next one is the last."""

_IN_PYTHON: Any = getattr(_default_records, "_DefaultRecordBatchPy")  # noqa: B009
_FAST: Any = _default_records.DefaultRecordBatch
_WITH_HEADERS = 2
"""From this version of the format on, records have headers."""
_HEADER_BYTES = 61
_ATTRIBUTES_AT, _ATTRIBUTES_END = 21, 23
_CODEC = 7
"""The bits of the attributes that name it."""


def read_all_batches() -> None:
    """From now on, all consumers of this process read so. Safe to repeat."""
    fetcher: Any = _fetcher
    fetcher.MemoryRecords = _Records


class _Records:
    """What was fetched of a partition: aiokafka's MemoryRecords, as its fetcher uses them."""

    def __init__(self, fetched: bytes) -> None:
        self._fetched, self._at = fetched, 0
        self._records: Any = MemoryRecords(fetched)
        self._unpacked_bytes = 0

    def has_next(self) -> bool:
        return self._unpacked_bytes < MOST_FETCHED_BYTES and self._records.has_next()

    def size_in_bytes(self) -> int:
        return self._records.size_in_bytes()

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin = self._at
        # Each tells its offset, and how many bytes follow.
        self._at += 12 + unpack_from(">i", self._fetched, begin + 8)[0]
        if batch.magic < _WITH_HEADERS:
            return batch
        return _Batch(batch, memoryview(self._fetched)[begin : self._at], self._count)

    def _count(self, unpacked_bytes: int) -> None:
        self._unpacked_bytes += unpacked_bytes


class _Batch:
    """A batch, which begins again where the name of a header is no UTF-8."""

    def __init__(self, batch: Any, written: memoryview, count: Any) -> None:
        self._batch, self._written, self._count = batch, written, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            plain = self._unpacked()
        except TooLarge:
            yield self._unread()
            return
        read = -1
        try:
            for record in self._batch if plain is self._written else _FAST(plain):
                read = record.offset
                yield record
        except (UnicodeDecodeError, CorruptRecordException) as error:
            # Without its compiled part, aiokafka names the error anew.
            if not isinstance(error.__cause__ or error, UnicodeDecodeError):
                raise
            yield from (each for each in _spelt(plain) if each.offset > read)

    def _unpacked(self) -> memoryview:
        """The same batch as if nobody had compressed it. Raises TooLarge."""
        (attributes,) = unpack_from(">h", self._written, _ATTRIBUTES_AT)
        codec = attributes & _CODEC
        if codec not in CODECS:
            # Not compressed; or in a way that aiokafka has a word for.
            return self._written
        records = unpacked(codec, bytes(self._written[_HEADER_BYTES:]), MOST_UNPACKED_BYTES)
        self._count(len(records))
        parts = (
            self._written[:_ATTRIBUTES_AT],
            pack(">h", attributes & ~_CODEC),
            self._written[_ATTRIBUTES_END:_HEADER_BYTES],
            records,
        )
        return memoryview(b"".join(parts))

    def _unread(self) -> "_Stub":
        first, last = self._batch.base_offset, self._batch.next_offset - 1
        where = f"offset {last} is" if first == last else f"offsets {first} to {last} are"
        why = (
            f"What stands at {where} {len(self._written):,} bytes that unpack to more than "
            f"{MOST_UNPACKED_BYTES:,}: nothing of it was read. It stays there as long as its topic keeps it."
        )
        log.error("left unread", reason=why)
        return _Stub(last, self._batch.max_timestamp, self._batch.timestamp_type, Unread(why))


@dataclass(frozen=True)
class _Stub:
    """Stands for the records of a batch, at its last offset: whoever is done with it is done with all."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: Unread
    key: bytes = b""
    headers: tuple[()] = ()
    checksum: None = None


def _spelt(plain: memoryview) -> Iterator[Any]:
    batch = _IN_PYTHON(plain)
    batch._buffer = _Spelt(batch._buffer)
    return batch


class _Spelt(bytearray):
    """Bytes whose parts decode, whatever they are."""

    def __getitem__(self, part: SupportsIndex | slice) -> Any:
        got = super().__getitem__(part)
        return _Spelt(got) if isinstance(got, bytearray) else got

    def decode(self, encoding: str = "utf-8", errors: str = "") -> str:  # noqa: ARG002
        return super().decode(encoding, "backslashreplace")
