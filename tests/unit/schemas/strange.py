"""Strange values: what somebody, some day, will send."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import JsonValue


def any_text(max_size: int) -> SearchStrategy[str]:
    """Strings of every code point: NUL and lone surrogates too."""
    usual = st.text(st.characters(exclude_categories=()), max_size=max_size)
    odd = st.sampled_from(
        ["", " ", "\x00", "\ud800", "a\udfff", "\u3000", "\ufeff", "\u202e", "x\n"]
    )
    return usual | odd


def storable_text(max_size: int) -> SearchStrategy[str]:
    """Strings of every script that every store can keep."""
    return st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=max_size)


def storable_json() -> SearchStrategy[JsonValue]:
    """JSON within the limits of metadata, but for its size."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | storable_text(max_size=20)
    )
    level: SearchStrategy[Any] = scalars
    for _ in range(3):
        level = (
            scalars
            | st.lists(level, max_size=3)
            | st.dictionaries(storable_text(max_size=5), level, max_size=3)
        )
    return level


def not_json() -> SearchStrategy[Any]:
    """Python values of which some are JSON, and many are not."""
    values: list[Any] = [
        None,
        True,
        0,
        10**30,
        10**4_000,
        -1,
        1.5,
        math.nan,
        math.inf,
        "",
        "\x00",
        "\ud800",
        b"\xff",
        (1, 2),
        frozenset({1}),
        1j,
        datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        timedelta.max,
        UUID(int=0),
        Exception("x"),
        len,
        ...,
    ]
    return st.sampled_from(values) | storable_json() | any_text(max_size=5)


def nested(kind: str, depth: int) -> Any:
    """A scalar within `depth` dicts or lists."""
    value: Any = 0
    for _ in range(depth):
        value = {"a": value} if kind == "dict" else [value]
    return value
