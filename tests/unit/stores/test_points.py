"""Whatever may be asked of a point has an index, so that a server in strict mode answers too."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import ValidationError

from pipeline.stores.conditions import Condition, Every, HasId, Not, OneHas, Some
from pipeline.stores.payloads import memory_point
from pipeline.stores.points import INDEXED, IndexShape, replaceable
from pipeline.stores.scope import erased_by, searched
from schemas.filters import Where
from schemas.search import SearchFilter
from tests.builders import DIMENSIONS, MODEL, enriched, user_forgotten

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SHAPE = IndexShape(MODEL, DIMENSIONS)


def test_whatever_a_filter_names_has_an_index() -> None:
    everything = SearchFilter(
        domain="coding",
        topics=("a",),
        occurred_from="2026-05-01T12:00:00Z",  # type: ignore[arg-type]
        speaker="s",
        agent_id="a",
        app_id="p",
        run_id="r",
        tiers=("short", "long"),
        metadata={"k": 1},
    )
    asked: list[Condition] = [
        searched("alice", everything, NOW),
        *(searched("alice", SearchFilter(where=where), NOW) for where in _each_field_of_a_filter()),
        erased_by(user_forgotten()),
        replaceable([memory_point(enriched(), SHAPE)]),
    ]
    assert {field for condition in asked for field in _fields(condition)} == INDEXED.keys()


def _each_field_of_a_filter() -> Iterator[Where]:
    for name in Where.model_fields.keys() - {"and_", "or_", "not_", "metadata"}:
        with suppress(ValidationError):
            yield Where.model_validate({name: "coding"})
        with suppress(ValidationError):
            yield Where.model_validate({name: {"gt": 0.5}})
        with suppress(ValidationError):
            yield Where.model_validate({name: {"gt": "2026-05-01"}})
    yield Where.model_validate({"metadata": {"k": {"gt": 1}}})


def _fields(condition: Condition) -> Iterator[str]:
    match condition:
        case Every(conditions) | Some(conditions):
            for each in conditions:
                yield from _fields(each)
        case Not(opposite):
            yield from _fields(opposite)
        case OneHas(field, conditions):
            for each in conditions:
                yield from (f"{field}[].{inner}" for inner in _fields(each))
        case HasId():
            return
        case _:
            yield condition.field
