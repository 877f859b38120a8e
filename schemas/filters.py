"""Conditions that nest: what a memory must be like to be found, in JSON that a person can write.

    {"speaker": "Ana", "or": [{"topics": ["food", "travel"]}, {"metadata": {"stars": {"gte": 4}}}]}

What stands side by side must all hold. A value alone is to be equal, a list is any of its values, and an
object names tests. A test of something that a memory does not have fails, except `ne`, `not_in` and
`{"exists": false}`; `not` is the opposite of what it holds, so it does find memories that lack the field.
A field with several values (topics, a list in the metadata) passes a test that one of them passes.

null, an empty list and an empty object are refused: each of them is everything to one reader and nothing
to another.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    StrictBool,
    model_serializer,
    model_validator,
)

from schemas.events import Domain, Tier, Utc
from schemas.text import Id, Storable, metadata_within_limits

MAX_DEPTH: Final = 8
"""Objects within objects: more than a person can read."""
MAX_CONDITIONS: Final = 64
"""Of one filter, `and`, `or` and `not` counted too."""
MAX_VALUES: Final = 128
"""Of one list."""
_MAX_KEYS: Final = 16
_TOO_DEEP: Final = f"is nested deeper than {MAX_DEPTH} objects"
_TOO_MANY: Final = f"has more than {MAX_CONDITIONS} conditions"
_NESTING: Final = ("and", "or", "not", "and_", "or_", "not_")
_GREATEST: Final = sys.float_info.max
_MOST_NAME_CHARS: Final = 40

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def moment_in(text: str) -> datetime | None:
    """The moment that a text is, in UTC: ISO 8601 from its date on, UTC unless it has an offset.

    None where it is none. A date alone is its midnight.
    """
    if not _DATE.match(text):
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_INSTEAD: Mapping[Any, str] = {
    "occurred_from": 'write {"occurred_at": {"gte": ...}}',
    "occurred_until": 'write {"occurred_at": {"lt": ...}}',
    "tiers": 'write {"tier": [...]}',
}
"""For what the flat form of a filter knows."""


class _Closed(BaseModel):
    """Says something, and nothing that is not known here."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True
    )

    @model_validator(mode="before")
    @classmethod
    def _says_what_is_known(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = cls.model_fields
        known = [field.serialization_alias or name for name, field in fields.items()]
        said: Mapping[Any, Any] = given
        for name, value in said.items():
            if name not in known and name not in fields:
                there = _INSTEAD.get(name) or f"there are {', '.join(known)}"
                raise ValueError(f"{_short(name)} is not known here: {there}")
            if value is None:
                raise ValueError(
                    f'{_short(name)} is null: leave it out, or write {{"exists": false}} for what '
                    "a memory must not have"
                )
            if value in ([], (), {}):
                raise ValueError(f"{_short(name)} is empty: give at least one, or leave it out")
        if not said:
            raise ValueError(f"is empty: give at least one of {', '.join(known)}")
        return said

    @model_serializer(mode="wrap")
    def _as_it_was_said(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        aliases = {n: f.serialization_alias or n for n, f in type(self).model_fields.items()}
        told: dict[str, Any] = whole(self)
        return {aliases.get(name, name): value for name, value in told.items() if value is not None}


def _short(name: Any) -> str:
    text = str(name)
    return repr(text if len(text) <= _MOST_NAME_CHARS else f"{text[:_MOST_NAME_CHARS]}…")


def _tests(given: Any) -> Any:
    """A value alone is to be equal, a list is any of its values."""
    if isinstance(given, Mapping | BaseModel):
        return given  # pyright: ignore[reportUnknownVariableType]
    return {"in": given} if isinstance(given, list | tuple) else {"eq": given}


def _bound(given: Any) -> float | datetime:
    match given:
        case int() | float() if not isinstance(given, bool) and abs(given) <= _GREATEST:
            return float(given)
        case str() if moment := moment_in(given):
            return moment
        case datetime() if given.tzinfo:
            return given.astimezone(UTC)
        case _:
            raise ValueError("must be a number or a time, as 4.5 or 2025-01-31T08:20:15+00:00")


def _kept(given: str | float) -> str | float:
    metadata_within_limits({"": given})
    return given


def _share(given: float) -> float:
    """Refuses what no memory can have: it would find nothing, or all, and not say why."""
    if not 0 <= given <= 1:
        raise ValueError("must be from 0 to 1")
    return given


def _moment(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    moment = moment_in(given)
    if moment is None:
        raise ValueError("is no time: write it as 2025-01-31, or 2025-01-31T08:20:15+00:00")
    return moment


_Share = Annotated[FiniteFloat, AfterValidator(_share)]
_Moment = Annotated[Utc, BeforeValidator(_moment, json_schema_input_type=str)]
_Bound = Annotated[
    float | datetime, BeforeValidator(_bound, json_schema_input_type=FiniteFloat | str)
]
_Scalar = Annotated[str | int | float | bool, AfterValidator(_kept)]
_Several = Field(max_length=MAX_VALUES, fail_fast=True)


class Words(_Closed):
    """Tests of a name: the domain, a topic, who said it, where it comes from."""

    eq: Id | None = None
    ne: Id | None = None
    in_: Annotated[tuple[Id, ...], _Several] | None = Field(
        default=None, validation_alias="in", serialization_alias="in"
    )
    not_in: Annotated[tuple[Id, ...], _Several] | None = None
    exists: StrictBool | None = None


class Numbers(_Closed):
    """Tests of a number from 0 to 1."""

    eq: _Share | None = None
    ne: _Share | None = None
    gt: _Share | None = None
    gte: _Share | None = None
    lt: _Share | None = None
    lte: _Share | None = None


class Moments(_Closed):
    """Tests of a time: ISO 8601, a date alone is its midnight, UTC unless it has an offset."""

    gt: _Moment | None = None
    gte: _Moment | None = None
    lt: _Moment | None = None
    lte: _Moment | None = None


class Values(_Closed):
    """Tests of what the metadata holds under one key."""

    eq: _Scalar | None = None
    """As JSON has it: 1 and 1.0 are equal, 1, "1" and true are not."""
    ne: _Scalar | None = None
    in_: Annotated[tuple[_Scalar, ...], _Several] | None = Field(
        default=None, validation_alias="in", serialization_alias="in"
    )
    not_in: Annotated[tuple[_Scalar, ...], _Several] | None = None
    gt: _Bound | None = None
    """A number, compared as a double, or a time, compared with texts that are ISO 8601 dates or times."""
    gte: _Bound | None = None
    lt: _Bound | None = None
    lte: _Bound | None = None
    exists: StrictBool | None = None
    """Whether there is a value that is neither null nor an empty list."""

    @model_validator(mode="after")
    def _bounds_of_a_kind(self) -> Self:
        bounds = [bound for bound in (self.gt, self.gte, self.lt, self.lte) if bound is not None]
        if len({isinstance(bound, datetime) for bound in bounds}) > 1:
            raise ValueError("compares with a number and with a time: a value is one of them")
        return self


def _one_of(*names: str) -> AfterValidator:
    """Refuses what no memory can have: it would find nothing and not say why."""

    def known(tests: Words) -> Words:
        told = {tests.eq, tests.ne, *(tests.in_ or ()), *(tests.not_in or ())} - {None, *names}
        if told:
            raise ValueError(f"must be {', '.join(names[:-1])} or {names[-1]}")
        return tests

    return AfterValidator(known)


_Words = Annotated[Words, BeforeValidator(_tests, json_schema_input_type=Id | list[Id] | Words)]
_Numbers = Annotated[Numbers, BeforeValidator(_tests, json_schema_input_type=FiniteFloat | Numbers)]
_Values = Annotated[
    Values, BeforeValidator(_tests, json_schema_input_type=_Scalar | list[_Scalar] | Values)
]


class Where(_Closed):
    """Conditions of one memory; all that is given must hold.

    At most 64 conditions, eight objects deep. A field that is added here needs a payload index, too.
    """

    and_: (
        Annotated[tuple["Where", ...], Field(max_length=MAX_CONDITIONS, fail_fast=True)] | None
    ) = Field(default=None, validation_alias="and", serialization_alias="and")
    """All of these hold."""
    or_: Annotated[tuple["Where", ...], Field(max_length=MAX_CONDITIONS, fail_fast=True)] | None = (
        Field(default=None, validation_alias="or", serialization_alias="or")
    )
    """At least one of these holds."""
    not_: "Where | None" = Field(default=None, validation_alias="not", serialization_alias="not")
    """This does not hold."""
    domain: Annotated[_Words, _one_of(*get_args(Domain))] | None = None
    topics: _Words | None = None
    speaker: _Words | None = None
    agent_id: _Words | None = None
    app_id: _Words | None = None
    run_id: _Words | None = None
    tier: Annotated[_Words, _one_of(*get_args(Tier))] | None = None
    """Where it stands by its use. Archived memories are found where a filter names tiers."""
    importance: _Numbers | None = None
    """0 to 1, by the classifier."""
    occurred_at: Moments | None = None
    """When what it tells happened."""
    changed_at: Moments | None = None
    """When its newest state was published, by the publisher's clock."""
    metadata: Annotated[dict[Storable, _Values], Field(max_length=_MAX_KEYS)] | None = None
    """Tests of the values under these keys, at the top of the metadata."""

    @model_validator(mode="before")
    @classmethod
    def _worth_reading(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            _check_size(cast("Mapping[Any, Any]", given))
        return given  # pyright: ignore[reportUnknownVariableType]

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        if _depth(self) > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        if _conditions(self) > MAX_CONDITIONS:
            raise ValueError(_TOO_MANY)
        return self

    @property
    def names_tiers(self) -> bool:
        """Whether any of its conditions is about the tier."""
        return self.tier is not None or any(each.names_tiers for each in _below(self))


def _check_size(given: Mapping[Any, Any]) -> None:
    """Refuses what is too much before it is read: to find each of 100,000 mistakes takes seconds."""
    left, below = MAX_CONDITIONS, [(given, 1)]
    while below:
        one, depth = below.pop()
        if depth > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        for name, value in one.items():
            inner = _inner(value) if name in _NESTING else ()
            left -= len(inner) if name in _NESTING else _size(value, named=name == "metadata")
            if left < 0:
                raise ValueError(_TOO_MANY)
            below += [(each, depth + 1) for each in inner if isinstance(each, Mapping)]


def _inner(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else [value]


def _size(tests: Any, *, named: bool = False) -> int:
    """How many tests of one field there are; `named`: of each of several keys."""
    if not isinstance(tests, Mapping):
        return 1
    held = cast("Mapping[Any, Any]", tests)
    if not named or len(held) > MAX_CONDITIONS:
        return len(held)
    return sum(map(_size, held.values()))


def _below(where: Where) -> Iterator[Where]:
    yield from where.and_ or ()
    yield from where.or_ or ()
    if where.not_ is not None:
        yield where.not_


def _depth(where: Where) -> int:
    return 1 + max(map(_depth, _below(where)), default=0)


def _conditions(where: Where) -> int:
    fields = [getattr(where, name) for name in where.model_fields_set]
    tests = [*fields, *(where.metadata or {}).values()]
    told = sum(
        len(t.model_fields_set) for t in tests if isinstance(t, Words | Numbers | Moments | Values)
    )
    return told + sum(1 + _conditions(each) for each in _below(where))
