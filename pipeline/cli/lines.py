"""A file or a pipe, line by line: in constant memory, and never stuck where nothing comes."""

import os
import select
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

MAX_LINE_BYTES = 1024 * 1024
"""More than any memory may take."""
_CHUNK_BYTES = 256 * 1024
_PATIENCE_S = 0.2


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end."""

    number: int
    after: int
    """The byte offset behind it."""
    content: bytes | None
    """None where it is longer than MAX_LINE_BYTES."""


Lines = Generator[Line | None]
"""Lines, and None whenever nothing came for a moment."""


def lines_of(fd: int, *, number: int = 0, offset: int = 0) -> Lines:
    """The lines of an open file or pipe, numbered from `number` + 1; the first byte is at `offset`."""
    begun, left_out = b"", 0
    for chunk in _chunks(fd):
        if chunk is None:
            yield None
            continue
        *whole, begun = (begun + chunk).split(b"\n")
        for content in whole:
            number += 1
            offset += left_out + len(content) + 1
            yield Line(number, offset, None if left_out else content)
            left_out = 0
        if left_out or len(begun) > MAX_LINE_BYTES:
            left_out, begun = left_out + len(begun), b""
    if begun or left_out:
        yield Line(number + 1, offset + left_out + len(begun), None if left_out else begun)


def _chunks(fd: int) -> Generator[bytes | None]:
    while True:
        ready, _, _ = select.select([fd], [], [], _PATIENCE_S)
        if not ready:
            yield None
            continue
        chunk = os.read(fd, _CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def batch_of(lines: Lines, most: int) -> list[Line] | None:
    """The next lines, `most` at a time, fewer where they come slowly; None after the last one."""
    batch: list[Line] = []
    for line in lines:
        if line is None:
            return batch
        batch.append(line)
        if len(batch) == most:
            return batch
    return batch or None


def count_lines(path: Path) -> int:
    """How many lines a file has."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")
