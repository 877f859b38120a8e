"""Whatever the name of a header is, all records of a batch are read; and of no batch more than anybody sends."""

import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from cramjam import DecompressionError

from pipeline.kafka.batches import _Records  # pyright: ignore[reportPrivateUsage]
from pipeline.kafka.records import Unread
from pipeline.kafka.unpacking import TooLarge, unpacked
from tests.odd_headers import built

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MIB = 1024 * 1024
ROOM = 8 * MIB
ENCODERS = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}
TP = TopicPartition("memory.events", 0)


def read(fetched: bytes, records: Any = _Records) -> list[Any]:
    left, found = records(fetched), list[Any]()
    while left.has_next():
        batch = left.next_batch()
        assert batch.validate_crc()
        found += batch
    return found


def told(records: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_name_that_is_no_utf_8_takes_nothing_along(codec: int) -> None:
    rows = [(b"one", [("a", b"x")]), (b"two", [(b"caf\xe9", b"y"), ("c", None)]), (None, [])]
    before, odd, after = (
        built([(b"0", [])], base_offset=0, codec=codec),
        built(rows, base_offset=7, codec=codec),
        built([(b"9", [(b"\xff", b"")])], base_offset=10, codec=codec),
    )
    with pytest.raises(UnicodeDecodeError):
        read(odd, MemoryRecords)
    found = read(before + odd + after)
    assert [(r.offset, r.value) for r in found] == [
        (0, b"0"),
        (7, b"one"),
        (8, b"two"),
        (9, None),
        (10, b"9"),
    ]
    assert [list(r.headers) for r in found[1:]] == [
        [("a", b"x")],
        [(r"caf\xe9", b"y"), ("c", None)],
        [],
        [(r"\xff", b"")],
    ]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_what_can_be_read_is_read_as_before(codec: int) -> None:
    rows = [(b"%d" % n, [("é", b"x"), ("b", None)]) for n in range(50)]
    fetched = built(rows, base_offset=3, codec=codec)
    assert told(read(fetched)) == told(read(fetched, MemoryRecords))


def test_a_record_that_is_damaged_otherwise_is_not_read() -> None:
    fetched = bytearray(built([(b"one", []), (b"two", [])], base_offset=0))
    # The number of headers, the last byte of the last record: none become many.
    fetched[-1] = 0x7E
    with pytest.raises((CorruptRecordException, IndexError)):
        list(_Records(bytes(fetched)).next_batch())


def consumed(fetched: bytes, begin: int = 0) -> tuple[list[Any], int]:
    """As aiokafka's fetcher reads what it has fetched: the records, and where it goes on."""
    records: Any = PartitionRecords(TP, _Records(fetched), [], begin, None, None, True, 1)
    return list(records), records.next_fetch_offset


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_unpacks_to_too_much_is_one_record_that_says_so(codec: int) -> None:
    bomb = built([(b"0" * 5 * MIB, []), (b"0" * 4 * MIB, [])], base_offset=7, codec=codec)
    fetched = (
        built([(b"before", [])], base_offset=6) + bomb + built([(b"after", [])], base_offset=9)
    )
    (before, stub, after), goes_on = consumed(fetched)
    assert (before.value, after.value, goes_on) == (b"before", b"after", 10)
    # At the last offset: who has committed it does not meet the batch again.
    assert (stub.offset, stub.value, stub.key, stub.headers) == (8, b"", b"", ())
    assert isinstance(stub.value, Unread)
    assert "offsets 7 to 8" in stub.value.why
    assert [record.offset for record in consumed(bomb, 8)[0]] == [8]


@pytest.mark.parametrize("codec", ENCODERS, ids=["gzip", "snappy", "lz4", "zstd"])
def test_what_just_fits_is_unpacked_and_one_byte_more_is_not(codec: int) -> None:
    packed = ENCODERS[codec]
    assert unpacked(codec, packed(b"0" * ROOM), ROOM) == b"0" * ROOM
    assert unpacked(codec, packed(b"0"), ROOM) == b"0"
    with pytest.raises(TooLarge):
        unpacked(codec, packed(b"0" * (ROOM + 1)), ROOM)


@pytest.mark.parametrize("codec", [1, 3, 4], ids=["gzip", "lz4", "zstd"])
def test_several_streams_are_one_and_too_large_together(codec: int) -> None:
    packed = ENCODERS[codec]
    assert unpacked(codec, packed(b"one") + packed(b"two"), ROOM) == b"onetwo"
    with pytest.raises(TooLarge):
        unpacked(codec, packed(b"0" * 5 * MIB) * 2, ROOM)


def test_what_gzip_tells_of_its_size_is_not_believed() -> None:
    lying = gzip_encode(b"0" * (ROOM + 9))[:-4] + (3).to_bytes(4, "little")
    with pytest.raises(TooLarge):
        unpacked(1, lying, ROOM)


@pytest.mark.parametrize("codec", ENCODERS, ids=["gzip", "snappy", "lz4", "zstd"])
def test_what_is_damaged_is_an_error_and_not_too_large(codec: int) -> None:
    packed = bytearray(ENCODERS[codec](b"some words, and others, and words" * 20))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises((DecompressionError, EOFError, zlib.error)):
        unpacked(codec, bytes(packed[: len(packed) * 3 // 4]), ROOM)


def test_of_what_was_fetched_at_once_only_so_much_is_unpacked_at_once() -> None:
    fetched = b"".join(
        built([(b"0" * 4 * MIB, [])], base_offset=number, codec=4) for number in range(20)
    )
    size, offsets, goes_on, rounds = len(fetched) // 20, list[int](), 0, 0
    while goes_on < 20:
        records, goes_on = consumed(fetched[size * goes_on :], goes_on)
        offsets += [record.offset for record in records]
        assert sum(len(record.value) for record in records) <= 16 * MIB
        rounds += 1
    assert offsets == list(range(20))
    assert rounds == 10
