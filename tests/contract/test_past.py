"""What was believed then: the record tells the states of then, the index ranks them among what is unchanged."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.lexical import lexical_vector, question_terms
from pipeline.domain.tiers import Tiers
from pipeline.errors import Refused
from pipeline.ports import Embedding, MemoryRecords, MemoryVectors, Past, PastState, Question
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import (
    Enriched,
    MemoryClassified,
    MemoryEnriched,
    MemoryTiered,
)
from schemas.filters import Where
from schemas.search import SearchFilter
from tests.builders import archived, direction, enriched, forgotten, tiered, user_forgotten

WHEN = datetime(2026, 5, 1, tzinfo=UTC)
ENOUGH = 10_000


async def past(
    records: MemoryRecords, version: int, user_id: str = "alice", limit: int = 100
) -> list[tuple[str, str]]:
    told = await records.past(user_id, version, limit=limit, among=100, most_bytes=ENOUGH)
    assert not isinstance(told, str)
    return [(each.state.memory_id, each.state.text) for each in told]


# The record


async def test_the_record_tells_the_states_of_then_of_what_has_changed_since(
    records: MemoryRecords,
) -> None:
    await records.write(
        [
            enriched("unchanged", memory_id="a", version=1),
            enriched("first", memory_id="b", version=2, speaker="Ana", metadata={"n": 1}),
            enriched("second", memory_id="b", version=5),
            enriched("third", memory_id="b", version=9),
            enriched("later", memory_id="c", version=7),
            enriched("his", memory_id="b", version=2, user_id="bob"),
        ]
    )
    assert await past(records, 1) == []
    assert await past(records, 4) == [("b", "first")]
    assert await past(records, 5) == await past(records, 8) == [("b", "second")]
    assert await past(records, 9) == []
    told = await records.past("alice", 4, limit=9, among=9, most_bytes=ENOUGH)
    assert not isinstance(told, str)
    (then,) = told
    assert (then.state.version, then.state.speaker, then.state.metadata) == (2, "Ana", {"n": 1})
    assert (then.newest, then.told) == (9, None)
    assert await records.state_at("alice", "b", 4) == then
    assert await records.state_at("alice", "c", 4) is None
    assert await records.state_at("alice", "a", 4) is None, "it is as it was"


async def test_what_was_forgotten_since_is_gone_from_the_past(records: MemoryRecords) -> None:
    await records.write(
        [
            enriched("secret", memory_id="a", version=1),
            enriched("more of it", memory_id="a", version=2),
            forgotten("a", version=5),
            enriched("said again", memory_id="a", version=7),
            enriched("and revised", memory_id="a", version=9),
        ]
    )
    assert [await past(records, version) for version in (1, 2, 5, 6)] == [[], [], [], []]
    assert await past(records, 8) == [("a", "said again")]
    await records.write([user_forgotten(version=20), enriched("anew", memory_id="a", version=22)])
    assert await past(records, 8) == []


async def test_the_past_is_told_by_memory_id_and_within_the_limit(records: MemoryRecords) -> None:
    for version in (1, 2):
        await records.write(
            [enriched(f"{n}", memory_id=f"m{n}", version=version) for n in (3, 1, 2)]
        )
    assert await past(records, 1) == [("m1", "1"), ("m2", "2"), ("m3", "3")]
    assert await past(records, 1, limit=2) == [("m1", "1"), ("m2", "2")]
    with pytest.raises(Refused):
        await records.past(" ", 1, limit=2, among=9, most_bytes=ENOUGH)
    with pytest.raises(Refused):
        await records.state_at(" ", "m1", 1)


async def test_who_has_written_too_much_since_is_not_looked_through(records: MemoryRecords) -> None:
    await records.write([enriched("said", memory_id=f"m{n}", version=5) for n in range(4)])
    await records.write([forgotten("m3", version=6)])
    assert await records.past("alice", 4, limit=9, among=2, most_bytes=ENOUGH) == "written"
    assert await records.past("alice", 4, limit=9, among=3, most_bytes=ENOUGH) == []
    assert await records.past("alice", 5, limit=9, among=0, most_bytes=ENOUGH) == []
    assert await records.past("bob", 4, limit=9, among=0, most_bytes=ENOUGH) == []


async def test_states_that_say_too_much_are_not_told(records: MemoryRecords) -> None:
    """Texts as UTF-8, and metadata; of the first `limit` alone."""
    for version in (1, 5):
        await records.write(
            [
                enriched("é" * 100, memory_id="a", version=version),
                enriched("said", memory_id="b", version=version, metadata={"k": "v" * 500}),
                enriched("said", memory_id="c", version=version),
            ]
        )

    async def told(limit: int, most_bytes: int) -> str | int:
        told = await records.past("alice", 3, limit=limit, among=9, most_bytes=most_bytes)
        return told if isinstance(told, str) else len(told)

    assert [await told(1, 150), await told(1, 250)] == ["said", 1]
    assert [await told(2, 250), await told(2, 650), await told(2, 900)] == ["said", "said", 2]
    assert await told(9, 900) == 3


@pytest.mark.parametrize("version", [-(2**62), 0, 2**53 + 1, 2**62])
async def test_any_moment_may_be_asked_about(records: MemoryRecords, version: int) -> None:
    await records.write([enriched(memory_id="m", version=v) for v in (3, 5)])
    assert await past(records, version) == []


async def test_a_state_of_then_tells_how_its_memory_stands_today(records: MemoryRecords) -> None:
    for version in (1, 5):
        await records.write([enriched("said", memory_id="m", version=version)])
    (told,) = await records.live([archived("m", version=9)], Tiers())
    then = await records.state_at("alice", "m", 3)
    assert then is not None
    assert then.told == told
    assert told is not None
    assert told.archived_version is not None
    assert await records.past("alice", 3, limit=9, among=9, most_bytes=ENOUGH) == [then]


# A plain reading: the events of each memory, in the order of their versions


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["said", "gone", "all gone"])), max_size=12
)


def believed(events: Sequence[tuple[str, str]], version: int) -> dict[str, str]:
    """The texts of then, without what was forgotten later."""
    then: dict[str, str] = {}
    for n, (memory_id, change) in enumerate(events, 1):
        until = n <= version
        if change == "said" and until:
            then[memory_id] = f"text {n}"
        elif change == "gone":
            then.pop(memory_id, None)
        elif change == "all gone":
            then.clear()
    return then


def happened(events: Sequence[tuple[str, str]]) -> list[Enriched]:
    made: list[Enriched] = []
    for n, (memory_id, change) in enumerate(events, 1):
        match change:
            case "said":
                made.append(enriched(f"text {n}", memory_id=memory_id, version=n))
            case "gone":
                made.append(forgotten(memory_id, version=n))
            case _:
                made.append(user_forgotten(version=n))
    return made


async def newest(records: MemoryRecords, version: int) -> dict[str, str]:
    known = [await records.get("alice", memory_id) for memory_id in "abc"]
    return {one.memory_id: one.text for one in known if one and one.version <= version}


@given(events=EVENTS, version=st.integers(0, 13))
@settings(max_examples=60, deadline=None)
async def test_the_past_and_what_is_unchanged_are_what_was_believed(
    events: list[tuple[str, str]], version: int
) -> None:
    records = RecordsInMemory()
    for event in happened(events):
        await records.write([event])
    told = dict(await past(records, version))
    assert not told.keys() & (await newest(records, version)).keys()
    assert told | await newest(records, version) == believed(events, version)


@pytest.mark.parametrize("seed", range(6))
async def test_every_record_believed_the_same(records: MemoryRecords, seed: int) -> None:
    changes = ["said", "said", "gone", "said", "all gone", "said"]
    events = [("abc"[(seed * 5 + n) % 3], changes[(seed + n * n) % 6]) for n in range(12)]
    await records.write(happened(events))
    for version in range(13):
        told = dict(await past(records, version))
        assert told | await newest(records, version) == believed(events, version)


# The index


QUESTION = Question(
    Embedding(direction("q"), direction("q", 64)[None].astype("float16")), question_terms("1 or 2?")
)


def memory(memory_id: str, text: str, version: int, **fields: Any) -> MemoryEnriched:
    made = enriched(
        text,
        memory_id=memory_id,
        version=version,
        occurred_at=WHEN,
        vector=direction(text),
        tokens=direction(text, 64)[None],
        **fields,
    )
    return made.model_copy(update={"lexical_vector": lexical_vector(made)})


def then(event: MemoryEnriched, newest: int = 0, told: MemoryTiered | None = None) -> PastState:
    names = MemoryClassified.model_fields.keys() - {"type"}
    state = MemoryClassified(**{name: getattr(event, name) for name in names})
    tokens = direction(event.text, 64)[None].astype("float16")
    embedding = Embedding(direction(event.text), tokens)
    return PastState(state, embedding, newest or event.version, told)


async def texts(
    vectors: MemoryVectors, past: Past | None, user: str = "alice", **filter: Any
) -> dict[str, Any]:
    told = await vectors.candidates(
        user, QUESTION, filter=SearchFilter(**filter), mode="hybrid", depth=10, past=past
    )
    return {each.memory["text"]: each.signals for each in told}


async def test_a_past_shows_what_is_unchanged_and_its_states_and_nothing_later(
    vectors: MemoryVectors,
) -> None:
    was = memory("b", "was 1", 2)
    await vectors.write([memory("a", "unchanged", 1), memory("b", "is 2", 6), was])
    await vectors.write([memory("c", "later", 7), memory("a", "his", 1, user_id="bob")])
    past = Past(4, [then(was)])
    assert set(await texts(vectors, None)) == {"unchanged", "is 2", "later"}
    assert set(await texts(vectors, past)) == {"unchanged", "was 1"}
    assert set(await texts(vectors, Past(4))) == {"unchanged"}
    hits = await vectors.search(
        "alice", QUESTION.embedding, filter=SearchFilter(), limit=9, min_score=None, past=past
    )
    assert {hit.text for hit in hits} == {"unchanged", "was 1"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_a_filter_narrows_the_past_too_and_never_beyond_its_user(
    vectors: MemoryVectors,
) -> None:
    anas, bobs = memory("b", "was 1", 2, speaker="Ana"), memory("c", "was 2", 2, speaker="Bob")
    his = memory("d", "his 1", 2, speaker="Ana", user_id="bob")
    past = Past(4, [then(anas), then(bobs), then(his)])
    assert set(await texts(vectors, past)) == {"was 1", "was 2"}
    assert set(await texts(vectors, past, speaker="Ana")) == {"was 1"}
    not_anas = Where.model_validate({"not": {"speaker": "Ana"}})
    assert set(await texts(vectors, past, where=not_anas)) == {"was 2"}


async def test_what_the_index_knows_to_be_forgotten_is_in_no_past(vectors: MemoryVectors) -> None:
    """The record may hear of it a moment later."""
    states = [memory(memory_id, f"was 1 {memory_id}", 2) for memory_id in "bcd"]
    bobs = memory("b", "bobs 1", 2, user_id="bob")
    await vectors.write([memory("b", "is 1", 6), forgotten("b", version=7)])
    await vectors.write([forgotten("c", version=1)])
    assert set(await texts(vectors, Past(4, [then(each) for each in states]))) == {
        "was 1 c",
        "was 1 d",
    }
    await vectors.write([user_forgotten("bob", version=9)])
    assert await texts(vectors, Past(4, [then(bobs)]), user="bob") == {}
    for version, left in ((1, {"was 1 c", "was 1 d"}), (2, set[str]())):
        await vectors.write([user_forgotten(version=version)])
        assert set(await texts(vectors, Past(4, [then(each) for each in states]))) == left


async def test_what_is_put_away_today_is_put_away_in_the_past_too(vectors: MemoryVectors) -> None:
    was, unchanged = memory("b", "was 1", 2), memory("a", "unchanged 1", 1)
    away = tiered("b", version=8, tier="archived", archived_version=7)
    await vectors.write([unchanged, memory("b", "is 1", 6)])
    await vectors.tier([away, tiered("a", version=8, tier="archived", archived_version=7)])
    past = Past(4, [then(was, 6, away)])
    assert await texts(vectors, past) == {}
    assert set(await texts(vectors, past, tiers=("archived",))) == {"was 1", "unchanged 1"}
    back = Past(4, [then(was, 9, away)])
    assert set(await texts(vectors, back)) == {"was 1"}, "said anew, it came back"


async def test_a_state_of_then_is_told_once_where_the_index_still_has_it(
    vectors: MemoryVectors,
) -> None:
    was = memory("b", "was 1", 2)
    await vectors.write([was])
    assert set(await texts(vectors, Past(4, [then(was, 6)]))) == {"was 1"}


async def test_a_past_state_scores_as_it_did_when_it_was_the_newest(
    vectors: MemoryVectors,
) -> None:
    others = [memory(f"m{n}", f"other {n} {n % 3}", 1) for n in range(6)]
    was = memory("b", "was 1 and 2", 2)
    await vectors.write([*others, was])
    before = await texts(vectors, None)
    await vectors.write([memory("b", "is 1 and 2 now", 6)])
    after = await texts(vectors, Past(4, [then(was)]))
    assert after.keys() == before.keys()
    for text, signals in before.items():
        assert after[text] == pytest.approx(signals, abs=2e-3), text
