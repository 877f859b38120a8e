"""Mem0's filters -> a test of one row. Pure.

Siblings must all hold. AND, OR and NOT nest. An OR beside an AND is dropped without a word, as the
platform does. A row without the field never matches, and `*` asks that there be one.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]
Test = Callable[[Row], bool]

ENTITIES = ("user_id", "agent_id", "app_id", "run_id")
TIMES = ("created_at", "updated_at", "timestamp", "expiration_date")
_OTHERS = ("metadata", "categories", "keywords", "memory", "id", "memory_ids", "feedback")
_COLUMNS = {"timestamp": "created_at", "keywords": "memory", "memory_ids": "id"}


class BadRequest(ValueError):
    """What the platform answers with 400."""


def compiled(filters: Any) -> Test:
    """The filters as one test. Raises BadRequest."""
    if not filters:
        return lambda _: True
    if isinstance(filters, list):
        return _every([compiled(part) for part in filters])
    if not isinstance(filters, Mapping):
        raise BadRequest("filters: Expected a dictionary.")
    names = [name for name in filters if not (name == "OR" and "AND" in filters)]
    return _every([_part(name, filters[name]) for name in names])


def _part(name: str, value: Any) -> Test:
    match name:
        case "AND":
            return _every([compiled(part) for part in _list(name, value)])
        case "OR":
            return _any([compiled(part) for part in _list(name, value)])
        case "NOT":
            inner = _any([compiled(part) for part in _list(name, value)])
            return lambda row: not inner(row)
        case _:
            return _field(name, value)


def _list(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, list):
        raise BadRequest(f"{name} takes a list of conditions.")
    return value


def _every(tests: Sequence[Test]) -> Test:
    return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)


def _any(tests: Sequence[Test]) -> Test:
    return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)


def _field(name: str, value: Any) -> Test:
    if name not in (*ENTITIES, *TIMES, *_OTHERS):
        raise BadRequest(f"Unsupported filter field: {name}.")
    column = _COLUMNS.get(name, name)
    if name == "metadata" and isinstance(value, Mapping):
        return _of_metadata(value)
    if value == "*":
        return lambda row: row.get(column) is not None
    conditions = value if isinstance(value, Mapping) else {_default(name, value): value}
    return _every([_condition(column, operator, given) for operator, given in conditions.items()])


def _default(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "in"
    return "icontains" if name == "keywords" else "eq"


def _of_metadata(wanted: Mapping[str, Any]) -> Test:
    return lambda row: all((row.get("metadata") or {}).get(k) == v for k, v in wanted.items())


_COMPARING: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda has, given: has == given,
    "ne": lambda has, given: has != given,
    "gt": lambda has, given: has > given,
    "gte": lambda has, given: has >= given,
    "lt": lambda has, given: has < given,
    "lte": lambda has, given: has <= given,
}


def _condition(column: str, operator: str, given: Any) -> Test:
    if operator in ("contains", "icontains"):
        return _containing(column, str(given), fold=operator == "icontains")
    if operator == "in":
        if not isinstance(given, list):
            raise BadRequest("The operator in takes a list.")
        return _any([_condition(column, "eq", one) for one in given] or [lambda _: False])
    if operator not in _COMPARING:
        raise BadRequest(f"Unsupported filter operator: {operator}.")
    compare = _COMPARING[operator]
    if column in TIMES:
        moment = at(given)
        if moment is None:
            raise BadRequest(f"{column} takes a date as in 2025-01-31 or 2025-01-31T08:20:15Z.")
        return lambda row: (has := at(row.get(column))) is not None and compare(has, moment)
    if column == "categories":
        return lambda row: (given in (row.get(column) or [])) == (operator != "ne")
    if operator not in ("eq", "ne"):
        # What is no time is text.
        given = str(given)
    return lambda row: (has := row.get(column)) is not None and compare(has, given)


def _containing(column: str, given: str, *, fold: bool) -> Test:
    def test(row: Row) -> bool:
        has = row.get(column)
        texts = [str(one) for one in has] if isinstance(has, list) else [str(has or "")]
        if column == "categories":
            return given in texts
        return any(given.casefold() in t.casefold() if fold else given in t for t in texts)

    return test


def at(value: Any) -> datetime | None:
    """A moment as rows and filters write it: ISO 8601, or seconds since 1970."""
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        read = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
