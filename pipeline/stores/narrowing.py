"""A filter in, conditions out: what must hold of a memory that a search may find."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.domain.periods import Period
from pipeline.stores.conditions import (
    EVERYTHING,
    AnyOf,
    Between,
    Condition,
    Every,
    Is,
    Not,
    OneHas,
    Present,
    Some,
    Within,
)
from pipeline.stores.metadata_words import hashed, number_of, term
from pipeline.stores.points import ARCHIVED
from schemas.filters import Moments, Numbers, Values, Where, Words
from schemas.search import SearchFilter

_MICROSECOND = timedelta(microseconds=1)


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
        yield Is("metadata_terms", term(key, value))
    if filter.where is not None:
        yield of_where(filter.where, now)


def happened_in(periods: Sequence[Period]) -> Some:
    """What happened in one of these; events come with UTC's clock."""
    return Some(
        tuple(
            Within("occurred_at", each.since.replace(tzinfo=UTC), each.until.replace(tzinfo=UTC))
            for period in periods
            for each in period.each_year()
        )
    )


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
        yield Not(EVERYTHING)


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
        yield Is("metadata_terms", term(key, tests.eq))
    if tests.ne is not None:
        yield Not(Is("metadata_terms", term(key, tests.ne)))
    if tests.in_ is not None:
        yield AnyOf("metadata_terms", tuple(term(key, value) for value in tests.in_))
    if tests.not_in is not None:
        yield Not(AnyOf("metadata_terms", tuple(term(key, value) for value in tests.not_in)))
    if tests.exists is not None:
        there = Is("metadata_terms", hashed([key]))
        yield there if tests.exists else Not(there)
    if bounds := _bounds(tests):
        kind = "time" if isinstance(next(iter(bounds.values())), datetime) else "number"
        numbers = {name: number_of(bound) for name, bound in bounds.items()}
        yield OneHas(
            "metadata_numbers", (Is("key", hashed([key, kind])), Between("value", **numbers))
        )


def _in_microseconds(tests: Moments) -> dict[str, float]:
    return {name: number_of(bound) for name, bound in _bounds(tests).items()}


def _bounds(tests: Numbers | Moments | Values) -> dict[str, Any]:
    given = {name: getattr(tests, name) for name in ("gt", "gte", "lt", "lte")}
    return {name: bound for name, bound in given.items() if bound is not None}
