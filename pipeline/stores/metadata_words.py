"""Metadata as an index can find it: it has keys that nobody knows beforehand.

An engine reads dots, brackets and quotes in a key as a path. So a memory carries one hashed word for each of its
values and one for each key that has any, and for each number and each time a pair of hashed key and number: two
fields to index, whatever the keys.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from pydantic import JsonValue

from pipeline.domain.clock import version_at
from schemas.filters import moment_in


def number_of(bound: float | datetime) -> float:
    """A number as a double; of a moment, its microseconds since 1970: exact for some 285 years around."""
    if isinstance(bound, datetime):
        return float(version_at(bound))
    return float(bound)


def metadata_terms(metadata: Mapping[str, JsonValue]) -> list[str]:
    """One word for each scalar in `metadata` and each in its lists, and one for each key with a value."""
    values = [term(key, item) for key, item in _scalars(metadata)]
    keys = [hashed([key]) for key, value in metadata.items() if value not in (None, [])]
    return list(dict.fromkeys([*values, *keys]))


def metadata_numbers(metadata: Mapping[str, JsonValue]) -> list[dict[str, str | float]]:
    """A hashed key and a number for each number and each time in `metadata` and in its lists."""
    told = [
        {"key": hashed([key, "number" if item is number else "time"]), "value": number_of(number)}
        for key, item in _scalars(metadata)
        if (number := moment_in(item) if isinstance(item, str) else item) is not None
        and not isinstance(item, bool)
    ]
    return [dict(pair) for pair in dict.fromkeys(tuple(each.items()) for each in told)]


def _scalars(metadata: Mapping[str, JsonValue]) -> Iterator[tuple[str, str | float]]:
    for key, value in metadata.items():
        items: Sequence[JsonValue] = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, str | int | float):
                yield key, item


def term(key: str, value: str | float) -> str:
    # JSON knows one kind of number: 1.0 is found as 1.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return hashed([key, value])


def hashed(said: Sequence[str | float]) -> str:
    return sha256(json.dumps(said).encode()).hexdigest()[:32]
