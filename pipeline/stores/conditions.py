"""What may be asked of a point, as small as every engine has it; and what it means, said once, in `holds`.

An engine only translates. Each condition is true or false of a point: a field that is missing meets no
test, and `Not` is the plain opposite, so it holds where the field is missing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Is:
    """The field holds this value, or is a list with it."""

    field: str
    value: str | int


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field holds one of these values, or is a list with one of them."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Present:
    """The field holds something, and no empty list."""

    field: str


@dataclass(frozen=True, slots=True)
class Within:
    """The moment in the field is not before `since` and before `until`, where given."""

    field: str
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Between:
    """The number in the field lies within these bounds, where given; compared as doubles."""

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class AtMost:
    """The number in the field is not greater."""

    field: str
    number: int


@dataclass(frozen=True, slots=True)
class Below:
    """The number in the field is smaller."""

    field: str
    number: int


@dataclass(frozen=True, slots=True)
class HasId:
    """The point is this one."""

    id: UUID


@dataclass(frozen=True, slots=True)
class OneHas:
    """One item of the list in the field meets all of these, in its own fields."""

    field: str
    conditions: tuple["Is | Between", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Every:
    """All of these hold."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of these holds."""

    conditions: tuple["Condition", ...]


Condition = (
    Is | AnyOf | Present | Within | Between | AtMost | Below | HasId | OneHas | Not | Every | Some
)


EVERYTHING: Final = Every(())
"""What every point meets."""


def holds(condition: Condition, id: UUID, payload: Mapping[str, Any]) -> bool:
    """Whether a condition holds of a point."""
    match condition:
        case Every(conditions):
            return all(holds(each, id, payload) for each in conditions)
        case Some(conditions):
            return any(holds(each, id, payload) for each in conditions)
        case Not(opposite):
            return not holds(opposite, id, payload)
        case HasId(own):
            return id == own
        case OneHas(field, conditions):
            items = cast("list[dict[str, Any]]", payload.get(field, []))
            return any(all(holds(each, id, item) for each in conditions) for item in items)
        case Present(field):
            return payload.get(field) not in (None, [])
        case _:
            value = payload.get(condition.field)
            values = cast("list[str | float]", value) if isinstance(value, list) else [value]
            return any(item is not None and _meets(condition, item) for item in values)


def _meets(condition: Is | AnyOf | Within | Between | AtMost | Below, value: str | float) -> bool:
    match condition:
        case Is():
            return value == condition.value
        case AnyOf():
            return value in condition.values
        case AtMost():
            return int(value) <= condition.number
        case Below():
            return int(value) < condition.number
        case Between(_, gt, gte, lt, lte):
            number = float(value)
            above = (gt is None or number > gt) and (gte is None or number >= gte)
            return above and (lt is None or number < lt) and (lte is None or number <= lte)
        case Within(_, since, until):
            moment = datetime.fromisoformat(str(value))
            return (since is None or since <= moment) and (until is None or moment < until)


READ_FIELDS: Final = ("metadata_numbers",)
"""What no engine tells by its payload indexes alone."""


def without(condition: Condition, fields: Collection[str]) -> Condition:
    """What holds wherever `condition` does, whatever stands in `fields`; the same where it asks nothing of them."""
    return _without(condition, fields, EVERYTHING)


def _without(condition: Condition, fields: Collection[str], instead: Every | Some) -> Condition:
    match condition:
        case Every(conditions):
            return Every(tuple(_without(each, fields, instead) for each in conditions))
        case Some(conditions):
            return Some(tuple(_without(each, fields, instead) for each in conditions))
        case Not(opposite):
            never = Some(()) if isinstance(instead, Every) else EVERYTHING
            return Not(_without(opposite, fields, never))
        case HasId():
            return condition
        case _:
            return instead if condition.field in fields else condition
