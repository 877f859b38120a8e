"""The records of a compressed batch, unless they are more than anybody would send.

A few bytes can unpack to gigabytes, and no form of compression tells reliably to how many. So they are unpacked
into as much room as there may be, and what does not fit is not unpacked.
"""

from collections.abc import Callable
from struct import unpack_from
from typing import Any
from zlib import MAX_WBITS, decompressobj

import cramjam
from aiokafka import codec as _codec

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
"""As a batch names them."""
_FIRST_ROOM_BYTES = 64 * 1024
_NO_ROOM = "failed to write whole buffer"
_XERIAL_BYTES = 16
"""Of the header of a snappy stream as Java writes it: blocks follow, each after its length."""


class TooLarge(Exception):
    """It unpacks to more than it may."""


def unpacked(codec: int, packed: bytes, most_bytes: int) -> memoryview:
    """What is in it. Raises TooLarge, and what aiokafka's own readers raise where it is damaged."""
    return CODECS[codec](packed, most_bytes)


def _of_gzip(packed: bytes, most_bytes: int) -> memoryview:
    """One stream or several, one behind the other."""
    found = bytearray()
    while packed:
        reader = decompressobj(MAX_WBITS | 16)
        found += reader.decompress(packed, most_bytes + 1 - len(found))
        if len(found) > most_bytes:
            raise TooLarge
        if not reader.eof:
            raise EOFError("the gzip stream ends too early")
        # Zeros may fill it up.
        packed = reader.unused_data.lstrip(b"\0")
    return memoryview(found)


def _of_snappy(packed: bytes, most_bytes: int) -> memoryview:
    """A block, or Java's stream of blocks. Each tells its size, and holds no more than that."""
    is_stream: bool = getattr(_codec, "_detect_xerial_stream")(packed)  # noqa: B009
    blocks = _blocks(packed) if is_stream else [packed]
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > most_bytes:
        raise TooLarge
    return memoryview(b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks))


def _blocks(packed: bytes) -> list[bytes]:
    blocks: list[bytes] = []
    at = _XERIAL_BYTES
    while at < len(packed):
        (size,) = unpack_from("!I", packed, at)
        blocks.append(packed[at + 4 : at + 4 + size])
        at += 4 + size
    return blocks


def _into(read: Callable[[bytes, bytearray], int]) -> Callable[[bytes, int], memoryview]:
    """Into a room that grows until all fits: a large one costs time, though hardly anything comes into it."""

    def reader(packed: bytes, most_bytes: int) -> memoryview:
        size = min(max(_FIRST_ROOM_BYTES, 8 * len(packed)), most_bytes)
        while True:
            room = bytearray(size)
            try:
                return memoryview(room)[: read(packed, room)]
            except cramjam.DecompressionError as error:
                if str(error) != _NO_ROOM:
                    raise
            if size == most_bytes:
                raise TooLarge
            size = min(8 * size, most_bytes)

    return reader


CODECS: dict[int, Callable[[bytes, int], Any]] = {
    GZIP: _of_gzip,
    SNAPPY: _of_snappy,
    LZ4: _into(cramjam.lz4.decompress_into),
    ZSTD: _into(cramjam.zstd.decompress_into),
}
