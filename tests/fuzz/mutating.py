"""Valid messages in, messages that nobody would send out: some are still valid, most are not.

Each kind of damage has its own share, and a seed decides all of it. A value is put into JSON as it is
written, so that numbers without end, lone surrogates and names given twice get there too.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from random import Random
from typing import Any, cast
from uuid import UUID

import numpy as np

Path = tuple[str | int, ...]

WRITTEN = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e300", "1e-300", "-0.0", "0.1", "1.5"),
    *("0", "1", "-1", "7", "9007199254740991", "9007199254740992", "9223372036854775807"),
    *("9223372036854775808", "4611686018427387904", "-9223372036854775809", "9" * 30, "9" * 5_000),
    *("253402300799999999", "1773480413589794", "null", "true", "false", "[]", "{}", "[[]]", '""'),
    *('" "', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\u202e"', '"\\ufeff"', '"bob"'),
    *('"alice"', '"alice "', '"é"', '"e\\u0301"', '"' + "x" * 300 + '"'),
    *('"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59.999999-14:00"', '"2026-03-14T09:26:53"'),
    *('"1969-12-31T23:59:59.999999Z"', '"2026-03-14T09:26:60Z"', "1773480413", '"1773480413"'),
    *('"AAAA"', '"@@@@"', '"AACAfwAAgH8AAMB/"', '"float64"', '"float16"', '"float32"'),
    *("[-1,-8]", "[1,8]", "[8,1]", "[0,0]", "[0,8]", "[0,9223372036854775807]", "[1,2,3]"),
    *("[4611686018427387904,0]", "[18446744073709551616,0]", "[0,64]", "[3,64]", "[1.0,8.0]"),
    *('{"a":' * 8 + "1" + "}" * 8, '{"a.b[0]\\"":{"":[null]}}', "[" * 300 + "]" * 300),
    *('["food","food"]', '["x"]', "[7,7]", "[4294967296]", "[-1]", "[1e39]", "[0.5,1.25]"),
    *('"00000000-0000-0000-0000-000000000000"', '"UserForgotten"', '"MemoryForgotten"'),
    *('"MemoryEnriched"', '"MemoryCaptured"', '"SearchAsked"', '"other"', '"coding"', "1e0", "2"),
)
"""JSON values as they are written."""

_STRINGS = (
    *(
        "x",
        "'; drop table memories; --",
        "%s {0} $1",
        "a\tb\nc",
        "\u202eabc",
        "\ufeff",
        "e\u0301",
        "é",
    ),
    *(
        "\U0001f9e0" * 50,
        "x" * 256,
        "word " * 3_000,
        "\x7f\x1b[31m",
        "../../etc",
        "alice",
        "bob",
        "m1",
    ),
    *("thai-food", "0", "null", "\ufdfd" * 200, "İ", "ß", "a" * 15_999 + ".", "\u2028", "-"),
)
_TIMES = (
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-03-14T09:26:53.589793Z"),
    *("1969-12-31T23:59:59.999999Z", "2024-02-29T23:59:59+14:00", "1582-10-10T00:00:00-12:00"),
)
_INTEGERS = (0, 1, 2, 500, 2**31, 2**32 - 1, 2**53 - 1, 1773480414000000, 1773480414000001)
_FLOATS = (0.0, -0.0, 1.0, 0.5, 1e-45, 1e-320, 3.5e38, 1e39, -1.0, 65504.0, 65505.0, 1e308)
_SHAPES = (
    *((1, 8), (1, 8), (0, 8), (0, 0), (3, 64), (0, 64), (1, 64), (2, 8), (8, 1), (1, 7), (1, 384)),
    *((0, 2**31), (2**31, 0), (2**62, 0), (0, 2**62), (2**63, 0), (0, 2**70), (400, 64)),
)
"""Of matrices; those without a number are still of some shape."""
_WORDS = {"MemoryEnriched", "float32", "float16", "toy", "other", "coding"}
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT")
_NUMBERS = (0.0, 1.0, -1.0, 1e-40, 6.1e4, 7e4, 3e38, float("nan"), float("inf"), float("-inf"))

_HERE = "\x01here\x01"
_HERE_WRITTEN = json.dumps(_HERE)


class Mutator:
    """Damages messages of one door."""

    def __init__(self, random: Random, messages: Sequence[Any]) -> None:
        self._random = random
        self._messages = messages
        self._written = [json.dumps(message).encode() for message in messages]
        self._paths = [_paths(message) for message in messages]

    def one(self) -> bytes:
        """The next input."""
        match self._random.random():
            case draw if draw < 0.08:
                return self._random.randbytes(self._random.randrange(200))
            case draw if draw < 0.22:
                return self._torn(self._random.choice(self._written))
            case draw if draw < 0.50:
                return self._wrong()
            case draw if draw < 0.90:
                return self._odd()
            case draw if draw < 0.97:
                return self._mixed()
            case draw if draw < 0.9995:
                return self._random.choice(self._written)
            case _:
                return self._giant()

    def _torn(self, written: bytes) -> bytes:
        """Bytes flipped, left out, doubled."""
        torn = bytearray(written)
        for _ in range(self._random.choice([1, 1, 2, 8])):
            place, length = self._random.randrange(len(torn)), self._random.choice([1, 1, 4, 40])
            match self._random.randrange(4):
                case 0:
                    torn[place] ^= 1 << self._random.randrange(8)
                case 1:
                    del torn[place : place + length]
                case 2:
                    torn[place:place] = torn[place : place + length]
                case _:
                    torn[place:place] = self._random.randbytes(length)
            if not torn:
                break
        return bytes(torn)

    def _wrong(self) -> bytes:
        """Values where they do not belong."""
        number = self._random.randrange(len(self._messages))
        message, paths = self._messages[number], self._paths[number]
        written: list[str] = []
        for _ in range(self._random.choice([1, 1, 1, 2, 3])):
            path = self._random.choice(paths)
            message = _replaced(message, path, _HERE)
            written.append(self._random.choice(WRITTEN))
        text = json.dumps(message)
        for value in written:
            text = text.replace(_HERE_WRITTEN, value, 1)
        return text.encode()

    def _odd(self) -> bytes:
        """Values that are of the right kind, and that nobody thought of."""
        number = self._random.randrange(len(self._messages))
        message = self._messages[number]
        for _ in range(self._random.choice([1, 1, 2, 4])):
            path = self._random.choice(self._paths[number])
            message = _replaced(message, path, self._like(_at(message, path)))
        return json.dumps(message).encode()

    def _like(self, value: Any) -> Any:
        choice = self._random.choice
        match value:
            case {"dtype": _, "shape": _, "data": _}:
                return self._matrix()
            case bool():
                return not value
            case int():
                return choice(_INTEGERS)
            case float():
                return choice(_FLOATS)
            case str() if _UUID.fullmatch(value):
                return str(UUID(int=choice([0, 2**128 - 1, self._random.getrandbits(128)])))
            case str() if _TIME.match(value):
                return choice(_TIMES)
            case str() if value not in _WORDS:
                return choice(_STRINGS)
            case list() if value and choice([True, False]):
                return [*value, *value][: self._random.randrange(2 * len(value) + 1)]
            case _:
                return value

    def _matrix(self) -> Any:
        """A matrix whose bytes fit its shape, whatever the shape."""
        rows, columns = self._random.choice(_SHAPES)
        dtype = self._random.choice(["float32", "float16"])
        numbers = [1.0] * (rows * columns)
        for place in range(len(numbers)):
            numbers[place] = self._random.gauss()
        if numbers and self._random.random() < 0.5:
            numbers[self._random.randrange(len(numbers))] = self._random.choice(_NUMBERS)
        with np.errstate(over="ignore"):
            data = np.array(numbers, np.dtype(dtype)).tobytes()
        return {
            "dtype": dtype,
            "shape": [rows, columns],
            "data": urlsafe_b64encode(data).decode(),
        }

    def _mixed(self) -> bytes:
        """Fields of another kind of message, of another place, or given twice; fields left out."""
        one, other = (dict(self._random.choice(self._messages)) for _ in range(2))
        for name in self._random.sample(list(other), len(other) // 2):
            one[name] = other[name]
        for name in self._random.sample(list(one), self._random.randrange(3)):
            del one[name]
        text = json.dumps(one)
        if self._random.random() < 0.3 and one:
            name = self._random.choice(list(one))
            text = f"{text[:-1]}, {json.dumps(name)}: {self._random.choice(WRITTEN)}}}"
        return text.encode()

    def _giant(self) -> bytes:
        """As much as Kafka takes."""
        most = self._random.choice([100_000, 1_900_000])
        value = self._random.choice(
            [
                "[" * (most // 2) + "]" * (most // 2),
                '{"a":' * (most // 6) + "1" + "}" * (most // 6),
                "[" + "7," * (most // 2) + "7]",
                '"' + "x" * most + '"',
                '"' + "\\ud800" * (most // 6) + '"',
                "9" * most,
                "[" + '"food",' * (most // 7) + '"food"]',
            ]
        )
        number = self._random.randrange(len(self._messages))
        path = self._random.choice(self._paths[number])
        text = json.dumps(_replaced(self._messages[number], path, _HERE))
        return text.replace(_HERE_WRITTEN, value, 1).encode()


def _paths(part: Any, *before: str | int) -> list[Path]:
    """The way to every value within a message."""
    return [before, *(path for key, value in _items(part) for path in _paths(value, *before, key))]


def _items(part: Any) -> Sequence[tuple[str | int, Any]]:
    if isinstance(part, dict):
        return list(cast("dict[str | int, Any]", part).items())
    return list(enumerate(cast("list[Any]", part))) if isinstance(part, list) else []


def _at(part: Any, path: Path) -> Any:
    """What stands there; None where something was replaced on the way."""
    for step in path:
        part = dict(_items(part)).get(step)
    return part


def _replaced(part: Any, path: Path, value: Any) -> Any:
    """The message with `value` there; as it was where something was replaced on the way."""
    if not path:
        return value
    items = dict(_items(part))
    if path[0] not in items:
        return part
    items[path[0]] = _replaced(items[path[0]], path[1:], value)
    return items if isinstance(part, dict) else list(items.values())
