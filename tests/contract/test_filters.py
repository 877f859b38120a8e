"""A filter leaves the same memories in every engine: those that a plain reading of it leaves."""

import operator
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.domain.clock import moment_of
from pipeline.ports import MemoryVectors
from pipeline.stores.conditions import Every, Not, Some
from pipeline.stores.index import VectorIndex
from schemas.events import MemoryEnriched
from schemas.filters import Where, moment_in
from schemas.search import SearchFilter
from tests.builders import enriched, forgotten, question

DAY = datetime(2026, 5, 1, tzinfo=UTC)
BEGAN = 1_780_000_000_000_000
"""Microseconds: the first memory's version."""

SAID: list[dict[str, Any]] = [
    {"speaker": "Ana", "topics": ("food", "travel"), "metadata": {"stars": 4, "day": "2026-05-01"}},
    {"speaker": "Ana", "topics": ("food",), "metadata": {"stars": [1, 9.5], "x": True}},
    {
        "speaker": "Bob",
        "topics": (),
        "metadata": {"stars": "4", "day": "2026-05-02T10:00:00+02:00"},
    },
    {"topics": ("work",), "domain": "coding", "metadata": {"stars": 4.0, "x": []}, "run_id": "r"},
    {"speaker": "Bob", "domain": "business", "metadata": {"x": None, "": 1}, "agent_id": "a"},
    {"metadata": {"a.b": {"c": 1}, "x": [None], "day": "not 2026-05-01"}, "app_id": "Ana"},
    {"speaker": "ana", "metadata": {"x": False, "stars": 2**60 + 1}},
    {"metadata": {"stars": -0.5, "x": 1, "day": ["2026-05-03", "1969-12-31"]}},
]


def memories() -> list[MemoryEnriched]:
    return [
        enriched(
            memory_id=f"m{n}",
            version=BEGAN + n * 1_000_000,
            occurred_at=DAY + timedelta(hours=12 * n),
            importance=n / 8,
            **fields,
        )
        for n, fields in enumerate(SAID)
    ]


@pytest.fixture
async def held(vectors: MemoryVectors) -> MemoryVectors:
    """The index with alice's memories, one forgotten, and bob's copies of them."""
    his = [memory.model_copy(update={"user_id": "bob"}) for memory in memories()]
    gone = enriched(memory_id="gone", speaker="Ana")
    await vectors.write([*memories(), *his, gone])
    await vectors.write([forgotten("gone")])
    return vectors


async def left(vectors: MemoryVectors, where: Where) -> set[str]:
    hits = await vectors.search(
        "alice", question(), filter=SearchFilter(where=where), limit=100, min_score=None
    )
    return {hit.memory_id for hit in hits}


# A plain reading


def reads(where: Mapping[str, Any], memory: MemoryEnriched) -> bool:
    told: list[bool] = []
    for name, asked in where.items():
        match name:
            case "and":
                told.append(all(reads(each, memory) for each in asked))
            case "or":
                told.append(any(reads(each, memory) for each in asked))
            case "not":
                told.append(not reads(asked, memory))
            case "metadata":
                told += [passes(tests, memory.metadata.get(key)) for key, tests in asked.items()]
            case "changed_at":
                told.append(passes(asked, moment_of(memory.version)))
            case _:
                value = getattr(memory, name)
                told.append(passes(asked, list(value) if name == "topics" else value))
    return all(told)


def passes(tests: Any, value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    if isinstance(tests, list):
        tests = {"in": tests}
    if not isinstance(tests, dict):
        tests = {"eq": tests}
    bounds = {name: bound for name, bound in tests.items() if name[0] in "gl"}
    told = [not bounds or any(_within(bounds, each) for each in values)]
    for name, asked in tests.items():
        match name:
            case "eq" | "in":
                told.append(any(_same(each, one) for each in values for one in _all(asked)))
            case "ne" | "not_in":
                told.append(not any(_same(each, one) for each in values for one in _all(asked)))
            case "exists":
                told.append((value not in (None, [])) == asked)
            case _:
                pass
    return all(told)


def _all(asked: Any) -> list[Any]:
    return asked if isinstance(asked, list) else [asked]


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _within(bounds: Mapping[str, Any], value: Any) -> bool:
    def comparable(one: Any) -> Any:
        one = moment_in(one) if isinstance(one, str) else one
        usable = isinstance(one, int | float | datetime) and not isinstance(one, bool)
        return one if usable else None

    value, numbers = comparable(value), {name: comparable(bound) for name, bound in bounds.items()}
    if value is None or isinstance(value, datetime) != isinstance(
        next(iter(numbers.values())), datetime
    ):
        return False
    value = value if isinstance(value, datetime) else float(value)
    compared = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    return all(compared[name](value, bound) for name, bound in numbers.items())


# What may be asked


def equals(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(values, min_size=1, max_size=3)
    tests = {"eq": values, "ne": values, "in": several, "not_in": several, "exists": st.booleans()}
    return values | several | st.fixed_dictionaries({}, optional=tests).filter(bool)


def ranges_of(bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    each: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(("gt", "gte", "lt", "lte"), bounds)
    return st.fixed_dictionaries({}, optional=each).filter(bool)


NAMES = st.sampled_from(["Ana", "Bob", "ana", "r", "a", "nobody"])
WORDS = equals(NAMES)
TIMES = st.sampled_from(
    ["2026-05-01", "2026-05-02T08:00:00+00:00", "2026-05-03T12:00:00.000001Z", "1970-01-01"]
)
SECONDS = st.integers(-1, 9).map(lambda n: (moment_of(BEGAN) + timedelta(seconds=n)).isoformat())
SCALARS = st.sampled_from([4, 4.0, "4", 1, True, False, 9.5, "2026-05-01", 2**60 + 1])
NUMBERS = st.sampled_from([-1, 0, 1, 4, 4.0, 9.5, 5e18])
METADATA = equals(SCALARS) | ranges_of(NUMBERS) | ranges_of(TIMES)
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "domain": equals(st.sampled_from(["coding", "business", "other"])),
    "topics": equals(st.sampled_from(["food", "travel", "work", "none"])),
    **dict.fromkeys(("speaker", "agent_id", "app_id", "run_id"), WORDS),
    "importance": st.sampled_from([0, 0.125, 0.5]) | ranges_of(st.sampled_from([0, 0.25, 1])),
    "occurred_at": ranges_of(TIMES),
    "changed_at": ranges_of(SECONDS),
    "metadata": st.dictionaries(
        st.sampled_from(["stars", "day", "x", "", "a.b"]), METADATA, min_size=1, max_size=2
    ),
}


@st.composite
def wheres(draw: st.DrawFn, depth: int = 3) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(LEAVES)), min_size=1, max_size=2, unique=True))
    asked = {name: draw(LEAVES[name]) for name in names}
    if not depth or not (nodes := draw(st.sets(st.sampled_from(["and", "or", "not"])))):
        return asked
    inner = wheres(depth - 1)
    for node in sorted(nodes):
        asked[node] = draw(inner if node == "not" else st.lists(inner, min_size=1, max_size=3))
    return asked if draw(st.booleans()) else {node: asked[node] for node in nodes}


@given(asked=wheres())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a_filter_leaves_what_a_plain_reading_leaves(
    held: MemoryVectors, asked: dict[str, Any]
) -> None:
    expected = {memory.memory_id for memory in memories() if reads(asked, memory)}
    try:
        where = Where.model_validate(asked)
    except ValidationError as error:
        assume("more than 64 conditions" not in str(error))
        raise
    assert await left(held, where) == expected
    assert await left(held, Where.model_validate_json(where.model_dump_json())) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"speaker": {"exists": False}}, {"m3", "m5", "m7"}),
        ({"not": {"speaker": "Ana"}}, {"m2", "m3", "m4", "m5", "m6", "m7"}),
        ({"speaker": {"ne": "Ana"}}, {"m2", "m3", "m4", "m5", "m6", "m7"}),
        ({"topics": {"exists": False}}, {"m2"}),
        ({"metadata": {"x": {"exists": False}}}, {"m0", "m2", "m3", "m4"}),
        ({"metadata": {"stars": 4}}, {"m0", "m3"}),
        ({"metadata": {"stars": {"gte": 4, "lt": 9}}}, {"m0", "m3"}),
        ({"metadata": {"day": {"lt": "2026-05-02T09:00:00Z"}}}, {"m0", "m2", "m7"}),
        (
            {"or": [{"not": {"speaker": {"exists": True}}}, {"importance": {"gt": 0.7}}]},
            "m3 m5 m6 m7",
        ),
        ({"changed_at": {"lte": moment_of(BEGAN + 1_000_000).isoformat()}}, {"m0", "m1"}),
    ],
)
async def test_what_is_missing_meets_no_test_and_every_opposite(
    held: MemoryVectors, asked: dict[str, Any], expected: Any
) -> None:
    told = set(expected.split()) if isinstance(expected, str) else expected
    assert await left(held, Where.model_validate(asked)) == told


@pytest.mark.parametrize(
    "widest",
    [
        {"or": [{"speaker": "Ana"}, {"not": {"speaker": "Ana"}}]},
        {"not": {"speaker": "who was never there"}},
        {"not": {"and": [{"speaker": "Ana"}, {"not": {"speaker": "Ana"}}]}},
    ],
)
async def test_no_filter_reaches_beyond_its_user(
    held: MemoryVectors, widest: dict[str, Any]
) -> None:
    mine = {f"m{n}" for n in range(len(SAID))}
    await held.write([enriched(memory_id="hers alone", user_id="carol")])
    where = Where.model_validate(widest)
    assert await left(held, where) == mine
    assert (
        await held.search(
            "dave", question(), filter=SearchFilter(where=where), limit=9, min_score=None
        )
        == []
    )


async def test_nothing_to_choose_from_is_met_by_nobody(vectors: MemoryVectors) -> None:
    await vectors.write([enriched()])
    assert isinstance(vectors, VectorIndex)
    never = Some(())
    assert await vectors.points.count(Every((never,))) == 0
    assert await vectors.points.count(Every((Not(never),))) > 0
