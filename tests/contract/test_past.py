"""What was believed then: the record tells the states of then, the index ranks them among what is unchanged."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Refused
from pipeline.ports import Embedding, MemoryRecords, MemoryVectors, Past, PastState, Question
from pipeline.stores.memory import RecordsInMemory
from schemas.events import Enriched, MemoryClassified, MemoryEnriched, SparseVector
from schemas.filters import Where
from schemas.search import SearchFilter
from tests.builders import direction, enriched, forgotten, user_forgotten

WHEN = datetime(2026, 5, 1, tzinfo=UTC)


async def past(
    records: MemoryRecords, version: int, user_id: str = "alice", limit: int = 100
) -> list[tuple[str, str]]:
    told = await records.past(user_id, version, limit=limit)
    return [(state.memory_id, state.text) for state in told]


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
    (state,) = await records.past("alice", 4, limit=9)
    assert (state.version, state.speaker, state.metadata) == (2, "Ana", {"n": 1})
    assert await records.past("alice", 4, limit=9, memory_id="b") == [state]
    assert await records.past("alice", 4, limit=9, memory_id="c") == []


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
        await records.past(" ", 1, limit=2)


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


TERMS = SparseVector(indices=(1, 2), values=(1.0, 1.0))
QUESTION = Question(Embedding(direction("q"), direction("q", 64)[None].astype("float16")), TERMS)


def memory(memory_id: str, text: str, version: int, **fields: Any) -> MemoryEnriched:
    words = {word: 1.0 for word in (1, 2) if str(word) in text}
    return enriched(
        text,
        memory_id=memory_id,
        version=version,
        occurred_at=WHEN,
        vector=direction(text),
        tokens=direction(text, 64)[None],
        lexical_vector=SparseVector(indices=tuple(words), values=tuple(words.values())),
        **fields,
    )


def then(event: MemoryEnriched) -> PastState:
    names = MemoryClassified.model_fields.keys() - {"type"}
    state = MemoryClassified(**{name: getattr(event, name) for name in names})
    tokens = direction(event.text, 64)[None].astype("float16")
    return PastState(state, Embedding(direction(event.text), tokens), ())


async def texts(vectors: MemoryVectors, past: Past | None, **filter: Any) -> dict[str, Any]:
    told = await vectors.candidates(
        "alice", QUESTION, filter=SearchFilter(**filter), mode="hybrid", depth=10, past=past
    )
    return {each.memory["text"]: each.signals for each in told}


async def test_a_past_shows_what_is_unchanged_and_its_states_and_nothing_later(
    vectors: MemoryVectors,
) -> None:
    was = memory("b", "was 1", 2)
    await vectors.write([memory("a", "unchanged", 1), memory("b", "is 2", 6), was])
    await vectors.write([memory("c", "later", 7), memory("a", "his", 1, user_id="bob")])
    past = Past(4, [then(was)])
    assert texts_of(await texts(vectors, None)) == {"unchanged", "is 2", "later"}
    assert texts_of(await texts(vectors, past)) == {"unchanged", "was 1"}
    assert texts_of(await texts(vectors, Past(4))) == {"unchanged"}
    hits = await vectors.search(
        "alice", QUESTION.embedding, filter=SearchFilter(), limit=9, min_score=None, past=past
    )
    assert {hit.text for hit in hits} == {"unchanged", "was 1"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def texts_of(signals: Mapping[str, Any]) -> set[str]:
    return set(signals)


async def test_a_filter_narrows_the_past_too_and_never_beyond_its_user(
    vectors: MemoryVectors,
) -> None:
    anas, bobs = memory("b", "was 1", 2, speaker="Ana"), memory("c", "was 2", 2, speaker="Bob")
    his = memory("d", "his 1", 2, speaker="Ana", user_id="bob")
    past = Past(4, [then(anas), then(bobs), then(his)])
    assert texts_of(await texts(vectors, past)) == {"was 1", "was 2"}
    assert texts_of(await texts(vectors, past, speaker="Ana")) == {"was 1"}
    not_anas = Where.model_validate({"not": {"speaker": "Ana"}})
    assert texts_of(await texts(vectors, past, where=not_anas)) == {"was 2"}


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
