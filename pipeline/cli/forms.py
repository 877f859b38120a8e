"""A file that holds no JSON Lines at all is told so at once, and what makes it some: not a complaint a line."""

import json
import shlex

from pipeline.errors import Refused

HEAD_BYTES = 64 * 1024

_COMPRESSED = {
    b"\x1f\x8b": "gunzip -c",
    b"BZh": "bunzip2 -c",
    b"\xfd7zXZ\x00": "xz -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"PK\x03\x04": "funzip",
}
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_CSV_TO_ROWS = (
    'python3 -c "import csv, json, sys; '
    '[print(json.dumps(row)) for row in csv.DictReader(sys.stdin{dialect})]"'
)
_COLUMNS = {"text", "user", "user_id", "memory", "content", "message"}


def check_form(head: bytes, name: str) -> None:
    """Looks at the beginning of a file or a pipe. Raises Refused with the command that helps.

    What may be JSON Lines with a bad row passes: its rows are looked at one by one.
    """
    if found := _other_form(head):
        what, command = found
        source = "" if name == "-" else f" < {shlex.quote(name)}"
        named = "Standard input" if name == "-" else name
        raise Refused(
            f"{named} is {what}, and a row must be a JSON object on a line of its own: "
            f"`{command}{source} | hybrid-memory import -` makes it so."
        )


def _other_form(head: bytes) -> tuple[str, str] | None:
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            return "compressed", command
    if head.startswith(_UTF_16_OR_32) or (head[1:2] == b"\0" and head[3:4] == b"\0"):
        return "in UTF-16", "iconv -f UTF-16 -t UTF-8"
    lines = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 2)
    first, second = (line.strip() for line in [*lines, b""][:2])
    if first.startswith(b"["):
        return "one JSON array", "jq -c '.[]'"
    if first == b"{" and second.startswith(b'"'):
        return "JSON of several lines a row", "jq -c ."
    return _table(first.decode("utf-8", "replace"))


def _table(first: str) -> tuple[str, str] | None:
    """CSV, where the first line names columns that a row of memories has."""
    if first.startswith("{") or _is_json(first):
        return None
    for separator, dialect in ((",", ""), (";", ", delimiter=';'"), ("\t", ", delimiter='\\t'")):
        columns = [column.strip(' "').lower() for column in first.split(separator)]
        if len(columns) > 1 and _COLUMNS & set(columns):
            return "a table (CSV)", _CSV_TO_ROWS.format(dialect=dialect)
    return None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
