"""What every index promises: the twin, Qdrant Edge, the client's local mode, a server if there is one."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from pydantic import JsonValue

from pipeline.domain.identity import memory_key
from pipeline.domain.versions import erased, stamp
from pipeline.errors import Refused, Unusable
from pipeline.ports import MemoryVectors
from schemas.events import SparseVector
from schemas.search import Hit, SearchFilter
from tests.builders import (
    DIMENSIONS,
    direction,
    enriched,
    fingerprints,
    forgotten,
    question,
    user_forgotten,
)

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


async def found(
    vectors: MemoryVectors,
    text: str = "I love spicy Thai food",
    *,
    user_id: str = "alice",
    limit: int = 10,
    min_score: float | None = None,
    **filter: Any,
) -> list[Hit]:
    narrowed = SearchFilter(**filter)
    hits = await vectors.search(
        user_id, question(text), filter=narrowed, limit=limit, min_score=min_score
    )
    return list(hits)


async def ids(vectors: MemoryVectors, **asked: Any) -> list[str]:
    return [hit.memory_id for hit in await found(vectors, **asked)]


# Writing


async def test_writing_twice_is_writing_once(vectors: MemoryVectors) -> None:
    memory = enriched()
    assert await vectors.write([memory]) == ["stored"]
    assert await vectors.write([memory]) == ["stored"]
    assert await vectors.count(user_id="alice") == 1
    assert len(await found(vectors)) == 1


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
async def test_the_greatest_version_wins_in_any_order(
    vectors: MemoryVectors, order: tuple[int, ...]
) -> None:
    for version in order:
        await vectors.write([enriched(f"state {version}", memory_id="m", version=version)])
    (hit,) = await found(vectors)
    assert (hit.text, hit.version) == ("state 3", 3)


async def test_equal_versions_are_told_apart_by_event_id(vectors: MemoryVectors) -> None:
    one, other = (enriched(f"{i}", memory_id="m", version=5) for i in range(2))
    await vectors.write([one])
    await vectors.write([other])
    await vectors.write([one])
    winner = max([one, other], key=stamp)
    assert [hit.text for hit in await found(vectors)] == [winner.text]


async def test_a_batch_may_hold_a_memory_thrice(vectors: MemoryVectors) -> None:
    states = [enriched(f"state {v}", memory_id="m", version=v) for v in (2, 3, 1)]
    neighbour = enriched("neighbour", memory_id="n")
    outcomes = await vectors.write([states[0], neighbour, *states[1:]])
    assert outcomes == ["stored", "stored", "stored", "superseded"]
    assert {hit.text for hit in await found(vectors)} == {"state 3", "neighbour"}


async def test_a_batch_larger_than_any_request_is_written_whole(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(f"memory {i}") for i in range(600)])
    assert await vectors.count("alice") == 600


async def test_a_newer_state_leaves_nothing_of_the_older(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id="m", speaker="bob", metadata={"a": 1})])
    await vectors.write([enriched("Tea", memory_id="m")])
    (hit,) = await found(vectors)
    assert (hit.speaker, hit.metadata) == (None, {})
    assert await found(vectors, speaker="bob") == await found(vectors, metadata={"a": 1}) == []


async def test_a_state_under_an_idempotency_key_yields_to_any_other(
    vectors: MemoryVectors,
) -> None:
    revised = enriched("revised", memory_id="m", version=2)
    repeated = enriched("as remembered", memory_id="m", version=3, if_absent=True)
    assert await vectors.write([repeated]) == ["stored"]
    assert await vectors.write([revised]) == ["stored"]
    assert await vectors.write([repeated]) == ["superseded"]
    assert [hit.text for hit in await found(vectors)] == ["revised"]


async def test_two_users_with_the_same_memory_id_do_not_touch_each_other(
    vectors: MemoryVectors,
) -> None:
    await vectors.write(
        [enriched("hers", memory_id="m"), enriched("his", memory_id="m", user_id="bob")]
    )
    await vectors.write([forgotten("m")])
    assert await ids(vectors) == []
    assert [hit.text for hit in await found(vectors, user_id="bob")] == ["his"]


# Forgetting


async def test_forgotten_stays_forgotten_when_an_older_event_arrives(
    vectors: MemoryVectors,
) -> None:
    old, newer = (enriched(memory_id="m", version=v) for v in (1, 9))
    await vectors.write([old])
    assert await vectors.write([forgotten("m", version=5)]) == ["stored"]
    assert await vectors.write([old]) == ["forgotten"]
    assert await ids(vectors) == []
    assert await vectors.count() == 0
    await vectors.write([newer])
    assert await ids(vectors) == ["m"]


async def test_what_is_forgotten_before_it_arrives_stays_out(vectors: MemoryVectors) -> None:
    await vectors.write([forgotten("m", version=5)])
    assert await vectors.write([enriched(memory_id="m", version=4)]) == ["forgotten"]
    assert await ids(vectors) == []


async def test_forgetting_a_user_takes_all_and_spares_what_comes_later(
    vectors: MemoryVectors,
) -> None:
    await vectors.write([enriched(memory_id=f"m{i}", version=i + 1) for i in range(9)])
    await vectors.write([enriched(memory_id="his", user_id="bob", version=1)])
    later = enriched(memory_id="later", version=11)
    assert await vectors.write([user_forgotten(version=10), later]) == ["stored", "stored"]
    assert await ids(vectors) == ["later"]
    assert await ids(vectors, user_id="bob") == ["his"]
    assert await vectors.write([user_forgotten(version=10)]) == ["stored"]
    assert await ids(vectors) == ["later"]


async def test_forgetting_a_user_of_many_memories_takes_all(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(f"memory {i}", version=1) for i in range(1_100)])
    await vectors.write([user_forgotten(version=10)])
    assert await vectors.count("alice") == 0


async def test_an_older_memory_of_a_forgotten_user_stays_out(vectors: MemoryVectors) -> None:
    late = enriched(memory_id="late", version=9)
    await vectors.write([user_forgotten(version=10)])
    assert await vectors.write([late]) == ["forgotten"]
    assert await vectors.count() == 0
    assert [known.known for known in await fingerprints(vectors)] == [erased(10)]


async def test_a_memory_forgotten_with_its_user_leaves_no_content(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id="m", version=1), user_forgotten(version=10)])
    (left,) = await fingerprints(vectors)
    assert (left.key, left.known, left.content_hash) == (memory_key("alice", "m"), erased(10), "")


# Who may see what


async def test_nobody_finds_anothers_memory(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(user_id=user) for user in ("alice", "bob", "Alice", "alice2")])
    assert len(await found(vectors)) == 1
    assert await vectors.count("alice") == 1
    assert await vectors.count() == 4


async def test_an_unknown_user_has_no_memories(vectors: MemoryVectors) -> None:
    await vectors.write([enriched()])
    assert await ids(vectors, user_id="carol") == []
    assert await vectors.count("carol") == 0


@pytest.mark.parametrize("nobody", ["", " ", "\t\n"])
async def test_a_question_without_a_user_is_refused(vectors: MemoryVectors, nobody: str) -> None:
    await vectors.write([enriched()])
    with pytest.raises(Refused):
        await found(vectors, user_id=nobody)
    with pytest.raises(Refused):
        await vectors.count(nobody)
    with pytest.raises(Refused):
        await vectors.outcomes(nobody, [])


# Searching


async def test_the_closest_come_first_with_their_cosine(vectors: MemoryVectors) -> None:
    axes = np.eye(DIMENSIONS)
    places = {"near": axes[0] * 3, "between": axes[0] + axes[1], "opposite": -axes[0]}
    await vectors.write([enriched(name, vector=place) for name, place in places.items()])
    hits = await vectors.search(
        "alice", question(vector=axes[0]), filter=SearchFilter(), limit=10, min_score=None
    )
    assert [(hit.text, hit.score) for hit in hits] == [
        ("near", 1.0),
        ("between", pytest.approx(0.707107, abs=2e-6)),
        ("opposite", -1.0),
    ]


async def test_a_hit_tells_all_that_was_said(vectors: MemoryVectors) -> None:
    memory = enriched(
        memory_id="m",
        speaker="bob",
        agent_id="agent",
        app_id="app",
        run_id="run",
        domain="business",
        topics=("travel", "money"),
        metadata={"source": "chat", "deep": {"list": [1, 2.5, None, True]}},
        occurred_at=NOON + timedelta(microseconds=1),
    )
    await vectors.write([memory])
    (hit,) = await found(vectors)
    told = memory.model_dump(include=set(Hit.model_fields))
    assert hit.model_dump() == told | {
        "score": 1.0,
        "signals": {},
        "parts": {},
        "matched": (),
        "matched_day": (),
        "tier": "short",
        "consolidated": (),
    }


async def test_limit_takes_the_closest(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(f"memory {i}") for i in range(40)])
    everything = await ids(vectors, text="memory 7", limit=100)
    assert len(everything) == 40
    assert await ids(vectors, text="memory 7", limit=3) == everything[:3]


async def test_min_score_leaves_out_what_is_further(vectors: MemoryVectors) -> None:
    axes = np.eye(DIMENSIONS)
    await vectors.write([enriched("near", vector=axes[0]), enriched("far", vector=axes[1])])
    asked = question(vector=axes[0])
    for min_score, texts in [(1.0, ["near"]), (0.0, ["near", "far"]), (-1.0, ["near", "far"])]:
        hits = await vectors.search(
            "alice", asked, filter=SearchFilter(), limit=5, min_score=min_score
        )
        assert [hit.text for hit in hits] == texts


async def test_equal_scores_come_in_the_order_of_their_ids(vectors: MemoryVectors) -> None:
    names = [f"m{i:03}" for i in range(90)]
    await vectors.write([enriched(memory_id=name) for name in reversed(names)])
    assert await ids(vectors, limit=5) == names[:5]
    assert await ids(vectors, limit=100) == names


async def test_a_question_that_does_not_fit_is_unusable(vectors: MemoryVectors) -> None:
    for vector in (np.ones(DIMENSIONS + 1), np.full(DIMENSIONS, np.nan)):
        with pytest.raises(Unusable):
            await vectors.search(
                "alice", question(vector=vector), filter=SearchFilter(), limit=5, min_score=None
            )


# Filters


@pytest.mark.parametrize(
    ("fields", "matching", "other"),
    [
        ({"domain": "coding"}, {"domain": "coding"}, {"domain": "business"}),
        ({"topics": ("a", "b")}, {"topics": ("x", "b")}, {"topics": ("x", "y")}),
        ({"speaker": "bob"}, {"speaker": "bob"}, {"speaker": "bo"}),
        ({"agent_id": "a"}, {"agent_id": "a"}, {"agent_id": "A"}),
        ({"app_id": "a"}, {"app_id": "a"}, {"app_id": "b"}),
        ({"run_id": "a"}, {"run_id": "a"}, {"run_id": "b"}),
    ],
)
async def test_each_filter_keeps_what_it_names(
    vectors: MemoryVectors,
    fields: dict[str, Any],
    matching: dict[str, Any],
    other: dict[str, Any],
) -> None:
    await vectors.write([enriched(memory_id="with", **fields), enriched(memory_id="without")])
    assert await ids(vectors, **matching) == ["with"]
    assert await ids(vectors, **other) == []


async def test_what_is_given_must_all_hold(vectors: MemoryVectors) -> None:
    await vectors.write(
        [
            enriched(memory_id="both", speaker="bob", metadata={"a": 1}),
            enriched(memory_id="one", speaker="bob"),
            enriched(memory_id="other", metadata={"a": 1}),
        ]
    )
    assert await ids(vectors, speaker="bob", metadata={"a": 1}) == ["both"]


async def test_a_filter_does_not_reach_another_user(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(user_id="bob", speaker="x", topics=("t",), metadata={"a": 1})])
    assert await ids(vectors, speaker="x") == await ids(vectors, topics=("t",)) == []
    assert await ids(vectors, metadata={"a": 1}) == []


async def test_a_time_range_holds_its_beginning_and_not_its_end(vectors: MemoryVectors) -> None:
    tick = timedelta(microseconds=1)
    for name, moment in [("before", NOON - tick), ("at", NOON), ("after", NOON + tick)]:
        await vectors.write([enriched(memory_id=name, occurred_at=moment)])
    assert set(await ids(vectors, occurred_from=NOON)) == {"at", "after"}
    assert await ids(vectors, occurred_until=NOON) == ["before"]
    assert await ids(vectors, occurred_from=NOON, occurred_until=NOON + tick) == ["at"]
    assert await ids(vectors, occurred_from=NOON, occurred_until=NOON) == []


async def test_a_time_range_is_the_same_moment_in_any_zone(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id="m", occurred_at="2026-05-01T14:00:00+02:00")])
    assert await ids(vectors, occurred_from="2026-05-01T07:00:00-05:00") == ["m"]
    (hit,) = await found(vectors, occurred_from=NOON)
    assert hit.occurred_at == NOON


@pytest.mark.parametrize("year", [1, 1600, 2300, 9999])
async def test_times_far_away_are_kept_and_found(vectors: MemoryVectors, year: int) -> None:
    moment = datetime(year, 6, 1, 1, 2, 3, 456789, tzinfo=UTC)
    await vectors.write([enriched(memory_id="m", occurred_at=moment)])
    (hit,) = await found(
        vectors, occurred_from=moment - timedelta(1), occurred_until=moment + timedelta(1)
    )
    assert hit.occurred_at == moment
    assert await ids(vectors, occurred_from=moment + timedelta(1)) == []


@pytest.mark.parametrize(
    ("kept", "asked", "matches"),
    [
        ("chat", "chat", True),
        ("chat", "cha", False),
        (["a", "b"], "b", True),
        ([["a"]], "a", False),
        (1, 1, True),
        (1, True, False),
        (1, "1", False),
        (True, True, True),
        (True, 1, False),
        (False, False, True),
        (1.0, 1, True),
        (1.5, 1, False),
        ({"a": "b"}, "b", False),
        (None, "None", False),
        ("", "", True),
    ],
)
async def test_metadata_is_found_by_exactly_its_value(
    vectors: MemoryVectors, kept: JsonValue, asked: str | int | bool, matches: bool
) -> None:
    await vectors.write([enriched(memory_id="m", metadata={"key": kept})])
    assert await ids(vectors, metadata={"key": asked}) == (["m"] if matches else [])
    assert await ids(vectors, metadata={"other": asked}) == []


@pytest.mark.parametrize(
    "key",
    ["a.b", "a[0]", "a[]", 'quo"ted', '"a"."b"', "", " ", "ключ", "🍜", "a\nb", "user_id", "-"],
)
async def test_any_metadata_key_is_just_a_key(vectors: MemoryVectors, key: str) -> None:
    await vectors.write(
        [
            enriched(memory_id="m", metadata={key: "x"}),
            enriched(memory_id="n", metadata={"a": {"b": "x"}}),
            enriched(memory_id="o", metadata={"a": ["x"]}),
        ]
    )
    assert await ids(vectors, metadata={key: "x"}) == ["m"]
    assert await ids(vectors, metadata={key: "y"}) == []
    (hit,) = await found(vectors, metadata={key: "x"})
    assert hit.metadata == {key: "x"}


# What a memory may be


@pytest.mark.parametrize(
    "text", ["x" * 16_000, "שלום, עולם", "🍜👩‍👩‍👧", "line\nline\ttab", "a\u202eb\u0301", "\u0001"]
)
async def test_any_text_comes_back_as_it_was(vectors: MemoryVectors, text: str) -> None:
    await vectors.write([enriched(text, user_id="用户 🙂", memory_id="a/b?c#d")])
    (hit,) = await found(vectors, text, user_id="用户 🙂")
    assert (hit.text, hit.memory_id) == (text, "a/b?c#d")


async def test_metadata_comes_back_as_it_was(vectors: MemoryVectors) -> None:
    metadata: dict[str, JsonValue] = {
        "deep": {"a.b": [{"c": None}, [], {}]},
        "great": 2**63 - 1,
        "small": -(2**63),
        "float": 1e300,
        "tiny": 5e-324,
        "true": True,
        "text": "é\u2028",
    }
    await vectors.write([enriched(metadata=metadata)])
    (hit,) = await found(vectors)
    assert hit.metadata == metadata
    assert isinstance(hit.metadata["true"], bool)


async def test_a_memory_without_tokens_topics_and_terms_is_found(vectors: MemoryVectors) -> None:
    bare = enriched("!", tokens=[], topic_rows=[], topics=(), lexical_vector=SparseVector())
    await vectors.write([bare, enriched("with")])
    assert await ids(vectors, text="!", limit=1) == [bare.memory_id]


async def test_a_memory_of_many_tokens_is_found(vectors: MemoryVectors) -> None:
    tokens = [direction(f"{i}", 64) for i in range(2_000)]
    long = enriched("long", tokens=tokens)
    await vectors.write([long, *(enriched(f"{i}") for i in range(3))])
    assert await ids(vectors, text="long", limit=1) == [long.memory_id]


NOT_FITTING: dict[str, dict[str, Any]] = {
    "nan": {"vector": [np.nan] * DIMENSIONS},
    "infinite": {"vector": [np.inf] + [0] * (DIMENSIONS - 1)},
    "too short": {"vector": [1.0] * (DIMENSIONS - 1)},
    "too long": {"vector": [1.0] * (DIMENSIONS + 1)},
    "nan in a token": {"tokens": [[np.nan] * 64]},
    "token of another length": {"tokens": [[1.0] * 63]},
    "infinite in a topic": {"topic_rows": [[np.inf] * DIMENSIONS]},
    "topic of another length": {"topic_rows": [[1.0]]},
    "a term of too great a weight": {"lexical_vector": SparseVector(indices=(1,), values=(1e39,))},
    "a term twice": {"lexical_vector": SparseVector(indices=(1, 1), values=(1.0, 2.0))},
    "another model": {"model": "another"},
    "no vector": {"text_vector": enriched(topic_rows=[]).topic_vectors},
}


@pytest.mark.parametrize("reason", NOT_FITTING)
async def test_what_does_not_fit_is_unusable_and_nothing_is_written(
    vectors: MemoryVectors, reason: str
) -> None:
    await vectors.write([enriched(memory_id="before")])
    bad = enriched(**NOT_FITTING[reason])
    neighbours = [enriched(memory_id="a"), user_forgotten("bob"), enriched(memory_id="b")]
    with pytest.raises(Unusable):
        await vectors.write([*neighbours, bad])
    assert await ids(vectors) == ["before"]
    assert await vectors.write(neighbours) == ["stored", "stored", "stored"]
    assert await ids(vectors) == ["a", "b", "before"]
