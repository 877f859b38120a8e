"""What a string may be, wherever one enters: bounded, and storable in every store.

Postgres keeps no NUL and UTF-8 has no lone surrogates. Refusing both at the door is kinder than
changing what somebody said, and safer than finding out three stages later.
"""

import math
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue, StringConstraints
from pydantic.config import JsonDict
from pydantic_core import to_json

MAX_TEXT_CHARS = 16_000
MAX_ID_CHARS = 256
MAX_METADATA_BYTES = 16_384
MAX_METADATA_DEPTH = 6
_I64 = 2**63
_WRITTEN_OUT = 1e16
"""From here on JSON writers use an exponent, and Postgres writes the digits without a fraction."""


def storable(text: str) -> str:
    """Returns `text` unchanged; raises ValueError where a store could not keep it."""
    if "\x00" in text:
        raise ValueError("holds a NUL character, which cannot be stored: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is not a character: remove it") from None
    return text


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: say what to remember")
    return storable(text)


def _named(identifier: str) -> str:
    if not identifier.strip():
        raise ValueError("is empty")
    if identifier != identifier.strip():
        raise ValueError("begins or ends with white space: two ids that look alike would differ")
    return storable(identifier)


def metadata_within_limits(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Returns `metadata` with its numbers as every store keeps them.

    Raises ValueError where it is too large, too deep or not storable.
    """
    _check(metadata, depth=1)
    kept = {key: _kept(value) for key, value in metadata.items()}
    # What is kept is what the next reader measures: 1e16 grows to 17 digits.
    if len(to_json(kept)) > MAX_METADATA_BYTES:
        raise ValueError(f"is larger than {MAX_METADATA_BYTES} bytes: keep large content elsewhere")
    return kept


def _kept(value: JsonValue) -> JsonValue:
    """A number as Postgres gives it back: it writes 1e16 as an integer, and knows no negative zero."""
    match value:
        case dict():
            return {key: _kept(item) for key, item in value.items()}
        case list():
            return [_kept(item) for item in value]
        case float() if not value:
            return 0.0
        case float() if abs(value) >= _WRITTEN_OUT and -_I64 <= value < _I64:
            return int(value)
        case _:
            return value


def _check(value: JsonValue, depth: int) -> None:
    if depth > MAX_METADATA_DEPTH + 1:
        raise ValueError(f"is nested deeper than {MAX_METADATA_DEPTH} levels")
    match value:
        case dict():
            for key, item in value.items():
                storable(key)
                _check(item, depth + 1)
        case list():
            for item in value:
                _check(item, depth + 1)
        case _:
            _check_scalar(value)


def _check_scalar(value: str | float | None) -> None:
    match value:
        case str():
            storable(value)
        case int() if not -_I64 <= value < _I64:
            raise ValueError("holds an integer beyond 64 bits")
        case float() if not math.isfinite(value):
            raise ValueError("holds a number that is not finite")
        case _:
            return


# As far as a pattern can say it: something to read, and no NUL in it.
_SAID: JsonDict = {"minLength": 1, "pattern": r"^\s*[^\s\u0000][^\u0000]*$"}
_NAMED: JsonDict = {"minLength": 1, "pattern": r"^[^\s\u0000]([^\u0000]*[^\s\u0000])?$"}

Storable = Annotated[str, AfterValidator(storable)]
"""Any string that every store can keep."""

Text = Annotated[
    str,
    StringConstraints(max_length=MAX_TEXT_CHARS),
    AfterValidator(_said),
    Field(json_schema_extra=_SAID),
]
"""What somebody said: 1 to 16,000 characters of any script."""

Id = Annotated[
    str,
    StringConstraints(max_length=MAX_ID_CHARS),
    AfterValidator(_named),
    Field(json_schema_extra=_NAMED),
]
"""The name of a user, a memory, an agent, a run: 1 to 256 characters, compared exactly."""

Metadata = Annotated[dict[str, JsonValue], AfterValidator(metadata_within_limits)]
"""What the publisher wants to find a memory by: JSON, at most 16 KB and six levels deep."""
