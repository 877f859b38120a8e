"""A filter in, conditions out: as small as every engine has them, and what they mean said once, in `holds`.

An engine only translates. Each condition is true or false of a point: a field that is missing meets no
test, and `Not` is the plain opposite, so it holds where the field is missing.

Metadata has keys that nobody knows beforehand, and an engine reads dots, brackets and quotes in a key as a
path. So a memory carries one hashed word for each of its values and one for each key that has any, and for
each number and each time a pair of hashed key and number: two fields to index, whatever the keys.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

from pydantic import JsonValue

from pipeline.domain.clock import version_at
from schemas.events import Tier
from schemas.filters import Moments, Numbers, Values, Where, Words, moment_in
from schemas.search import SearchFilter

ARCHIVED: Tier = "archived"
_MICROSECOND = timedelta(microseconds=1)


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


def without(condition: Condition, fields: Collection[str]) -> Condition:
    """What holds wherever `condition` does, whatever stands in `fields`; the same where it asks nothing of them."""
    return _without(condition, fields, Every(()))


def _without(condition: Condition, fields: Collection[str], instead: Every | Some) -> Condition:
    match condition:
        case Every(conditions):
            return Every(tuple(_without(each, fields, instead) for each in conditions))
        case Some(conditions):
            return Some(tuple(_without(each, fields, instead) for each in conditions))
        case Not(opposite):
            never = Some(()) if isinstance(instead, Every) else Every(())
            return Not(_without(opposite, fields, never))
        case HasId():
            return condition
        case _:
            return instead if condition.field in fields else condition


# A filter


def narrowed(filter: SearchFilter, now: datetime) -> Iterator[Condition]:
    """What must hold of a memory that the filter leaves at `now`; archived ones only where it names tiers."""
    if filter.tiers:
        yield Some(tuple(in_tier(tier, now) for tier in filter.tiers))
    elif not filter.names_tiers:
        yield Not(Is("tier", ARCHIVED))
    for name in ("domain", "speaker", "agent_id", "app_id", "run_id"):
        value = getattr(filter, name)
        if value is not None:
            yield Is(name, value)
    if filter.topics:
        yield AnyOf("topics", filter.topics)
    if filter.occurred_from is not None or filter.occurred_until is not None:
        yield Within("occurred_at", filter.occurred_from, filter.occurred_until)
    for key, value in filter.metadata.items():
        yield Is("metadata_terms", _term(key, value))
    if filter.where is not None:
        yield of_where(filter.where, now)


def of_where(where: Where, now: datetime) -> Every:
    """What the nested form says."""
    return Every(tuple(_said(where, now)))


def _said(where: Where, now: datetime) -> Iterator[Condition]:
    if where.and_ is not None:
        yield Every(tuple(of_where(each, now) for each in where.and_))
    if where.or_ is not None:
        yield Some(tuple(of_where(each, now) for each in where.or_))
    if where.not_ is not None:
        yield Not(of_where(where.not_, now))
    if where.tier is not None:
        yield from _of_tiers(where.tier, now)
    for name in type(where).model_fields.keys() - {"tier"}:
        yield from _tested(name, getattr(where, name))
    for key, tests in (where.metadata or {}).items():
        yield from _of_values(key, tests)


def _of_tiers(tests: Words, now: datetime) -> Iterator[Condition]:
    any_of = [*((tests.eq,) if tests.eq else ()), *(tests.in_ or ())]
    none_of = [*((tests.ne,) if tests.ne else ()), *(tests.not_in or ())]
    if any_of:
        yield Some(tuple(in_tier(tier, now) for tier in any_of))
    for tier in none_of:
        yield Not(in_tier(tier, now))
    if tests.exists is False:
        # Every memory stands in some tier.
        yield Not(Every(()))


def in_tier(tier: str, now: datetime) -> Condition:
    """The memories that stand in `tier` at `now`, by how they fade: nobody has to write that down."""
    long, medium = (
        Within("long_until", _after(now), None),
        Within("medium_until", _after(now), None),
    )
    kept = Not(Is("tier", ARCHIVED))
    match tier:
        case "archived":
            return Is("tier", ARCHIVED)
        case "long":
            return Every((kept, long))
        case "medium":
            return Every((kept, medium, Not(long)))
        case _:
            return Every((kept, Not(medium)))


def _tested(field: str, tests: Any) -> Iterator[Condition]:
    match tests:
        case Words():
            yield from _of_words(field, tests)
        case Numbers():
            yield from _of_numbers(field, tests)
        case Moments() if field == "changed_at":
            yield Between("version", **_in_microseconds(tests))
        case Moments():
            yield _of_moments(field, tests)
        case _:
            return


def _of_words(field: str, tests: Words) -> Iterator[Condition]:
    if tests.eq is not None:
        yield Is(field, tests.eq)
    if tests.ne is not None:
        yield Not(Is(field, tests.ne))
    if tests.in_ is not None:
        yield AnyOf(field, tests.in_)
    if tests.not_in is not None:
        yield Not(AnyOf(field, tests.not_in))
    if tests.exists is not None:
        yield Present(field) if tests.exists else Not(Present(field))


def _of_numbers(field: str, tests: Numbers) -> Iterator[Condition]:
    if tests.eq is not None:
        yield Between(field, gte=tests.eq, lte=tests.eq)
    if tests.ne is not None:
        yield Not(Between(field, gte=tests.ne, lte=tests.ne))
    bounds = _bounds(tests)
    if bounds:
        yield Between(field, **bounds)


def _of_moments(field: str, tests: Moments) -> Condition:
    """As every engine has it: from a moment on, until before another. Microseconds are the smallest step."""
    begins = [tests.gte, tests.gt and _after(tests.gt)]
    ends = [tests.lt, tests.lte and _after(tests.lte)]
    return Within(
        field,
        max((moment for moment in begins if moment), default=None),
        min((moment for moment in ends if moment), default=None),
    )


def _after(moment: datetime) -> datetime:
    return min(moment, datetime.max.replace(tzinfo=UTC) - _MICROSECOND) + _MICROSECOND


def _of_values(key: str, tests: Values) -> Iterator[Condition]:
    if tests.eq is not None:
        yield Is("metadata_terms", _term(key, tests.eq))
    if tests.ne is not None:
        yield Not(Is("metadata_terms", _term(key, tests.ne)))
    if tests.in_ is not None:
        yield AnyOf("metadata_terms", tuple(_term(key, value) for value in tests.in_))
    if tests.not_in is not None:
        yield Not(AnyOf("metadata_terms", tuple(_term(key, value) for value in tests.not_in)))
    if tests.exists is not None:
        there = Is("metadata_terms", _hashed([key]))
        yield there if tests.exists else Not(there)
    if bounds := _bounds(tests):
        kind = "time" if isinstance(next(iter(bounds.values())), datetime) else "number"
        numbers = {name: number_of(bound) for name, bound in bounds.items()}
        yield OneHas(
            "metadata_numbers", (Is("key", _hashed([key, kind])), Between("value", **numbers))
        )


def _in_microseconds(tests: Moments) -> dict[str, float]:
    return {name: number_of(bound) for name, bound in _bounds(tests).items()}


def _bounds(tests: Numbers | Moments | Values) -> dict[str, Any]:
    given = {name: getattr(tests, name) for name in ("gt", "gte", "lt", "lte")}
    return {name: bound for name, bound in given.items() if bound is not None}


def number_of(bound: float | datetime) -> float:
    """A number as a double; of a moment, its microseconds since 1970: exact for some 285 years around."""
    if isinstance(bound, datetime):
        return float(version_at(bound))
    return float(bound)


# Metadata


def metadata_terms(metadata: Mapping[str, JsonValue]) -> list[str]:
    """One word for each scalar in `metadata` and each in its lists, and one for each key with a value."""
    values = [_term(key, item) for key, item in _scalars(metadata)]
    keys = [_hashed([key]) for key, value in metadata.items() if value not in (None, [])]
    return list(dict.fromkeys([*values, *keys]))


def metadata_numbers(metadata: Mapping[str, JsonValue]) -> list[dict[str, str | float]]:
    """A hashed key and a number for each number and each time in `metadata` and in its lists."""
    told = [
        {"key": _hashed([key, "number" if item is number else "time"]), "value": number_of(number)}
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


def _term(key: str, value: str | float) -> str:
    # JSON knows one kind of number: 1.0 is found as 1.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _hashed([key, value])


def _hashed(said: Sequence[str | float]) -> str:
    return sha256(json.dumps(said).encode()).hexdigest()[:32]
