"""Lines come whole, numbered and placed, however they arrive."""

import os
from pathlib import Path

import pytest

from pipeline.cli.lines import MAX_LINE_BYTES, Line, batch_of, count_lines, lines_of


def lines_in(path: Path, **where: int) -> list[Line]:
    with path.open("rb", buffering=0) as file:
        file.seek(where.get("offset", 0))
        return [line for line in lines_of(file.fileno(), **where) if line is not None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_each_line_knows_its_number_and_what_is_behind_it(file: Path):
    file.write_bytes(b"one\n\nthree\nno end")
    assert lines_in(file) == [
        Line(1, 4, b"one"),
        Line(2, 5, b""),
        Line(3, 11, b"three"),
        Line(4, 17, b"no end"),
    ]


def test_reading_goes_on_behind_any_line(file: Path):
    file.write_bytes(b"".join(b"row %d\n" % number for number in range(100_000)))
    whole = lines_in(file)
    assert len(whole) == count_lines(file) == 100_000
    place = whole[70_000]
    assert lines_in(file, number=place.number, offset=place.after) == whole[70_001:]


def test_a_line_that_is_too_long_takes_no_memory_and_costs_its_neighbours_nothing(file: Path):
    file.write_bytes(b"one\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nthree\n")
    one, two, three = lines_in(file)
    assert two == Line(2, 4 + 3 * MAX_LINE_BYTES + 1, None)
    assert (one.content, three.content) == (b"one", b"three")
    assert three.after == file.stat().st_size


def test_a_long_last_line_without_an_end_is_told_too(file: Path):
    file.write_bytes(b"x" * (2 * MAX_LINE_BYTES))
    assert lines_in(file) == [Line(1, 2 * MAX_LINE_BYTES, None)]


def test_a_pipe_that_pauses_gives_what_it_has():
    reading, writing = os.pipe()
    lines = lines_of(reading)
    os.write(writing, b"one\ntwo\nthr")
    assert [line.content for line in batch_of(lines, 100) or []] == [b"one", b"two"]
    assert batch_of(lines, 100) == []
    os.write(writing, b"ee\n")
    os.close(writing)
    assert [line.content for line in batch_of(lines, 100) or []] == [b"three"]
    assert batch_of(lines, 100) is None
    os.close(reading)


def test_a_batch_is_as_large_as_asked(file: Path):
    file.write_bytes(b"a\nb\nc\n")
    with file.open("rb", buffering=0) as opened:
        lines = lines_of(opened.fileno())
        sizes = [len(batch_of(lines, 2) or []) for _ in range(2)]
        assert sizes == [2, 1]
        assert batch_of(lines, 2) is None
