"""Batches of records as a client may write them that speaks of headers as bytes."""

import struct
from collections.abc import Sequence
from typing import Any

from aiokafka.record import default_records

Headers = Sequence[tuple[str | bytes, bytes | None]]
BUILDER: Any = getattr(default_records, "_DefaultRecordBatchBuilderPy")  # noqa: B009
"""aiokafka's own in Python, which asks each name how it is encoded."""


class Name(str):
    """The name of a header, of any bytes."""

    __slots__ = ("raw",)

    def __new__(cls, raw: bytes) -> "Name":
        name = super().__new__(cls, raw.decode("latin-1"))
        name.raw = raw
        return name

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw


def built(
    rows: Sequence[tuple[bytes | None, Headers]],
    *,
    base_offset: int = 0,
    codec: int = 0,
    timestamp_ms: int = 1_773_480_414_000,
) -> bytes:
    """One batch of records with these values and headers, their keys `k`."""
    batch = BUILDER(2, codec, 0, -1, -1, -1, 10_000_000)
    for number, (value, headers) in enumerate(rows):
        named = [(Name(n) if isinstance(n, bytes) else n, own) for n, own in headers]
        batch.append(number, timestamp_ms + number, b"k", value, named)
    # The base offset is the broker's to set, and outside the checksum.
    return struct.pack(">q", base_offset) + bytes(batch.build())[8:]
