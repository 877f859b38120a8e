"""Whatever the name of a header is, all records of a batch are read."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from pipeline.kafka.header_names import _Records  # pyright: ignore[reportPrivateUsage]
from tests.odd_headers import built

CODECS = {"none": 0, "gzip": 1, "zstd": 4}


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
