"""What a question finds, and what the answer tells of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from consumers.query import known, newest, recalled
from pipeline.domain.lexical import lexical_vector
from pipeline.domain.ranking import DEPTH
from pipeline.domain.weights import Weights
from pipeline.models.hashing import HashingEmbedder
from pipeline.ports import Classification
from pipeline.searching.search import SearchPorts, search
from pipeline.stores.index import VectorIndex
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import MemoryEnriched, Said
from schemas.search import (
    Hit,
    MemoryAsked,
    NewestAsked,
    ReplyTo,
    SearchAnswered,
    SearchAsked,
    UserQuestion,
)
from tests.builders import enriched, forgotten, vectors_in_memory
from tests.unit.consumers.counting import CountingEmbedder

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EMBEDDER = HashingEmbedder()


class Labels:
    """Every text is about what it was made with."""

    def __init__(self, *topics: str) -> None:
        self.topics, self.asked = topics, 0

    def classify(self, texts: Sequence[str]) -> Sequence[Classification]:
        self.asked += 1
        return [Classification("other", self.topics, 0.5) for _ in texts]


async def memory(text: str, **fields: Any) -> MemoryEnriched:
    topics = fields.pop("topics", ())
    own, *labels = await EMBEDDER.embed([text, *topics])
    made = enriched(
        text,
        model=EMBEDDER.model,
        topics=topics,
        vector=own.text,
        tokens=own.tokens,
        topic_rows=[label.text for label in labels] or np.zeros((0, EMBEDDER.dimensions)),
        **{"occurred_at": NOW, "memory_id": text} | fields,
    )
    return made.model_copy(update={"lexical_vector": lexical_vector(made)})


async def index(*memories: MemoryEnriched) -> VectorIndex:
    made = vectors_in_memory(EMBEDDER.model, EMBEDDER.dimensions)
    await made.write(memories)
    return made


def asked(text: str, **fields: Any) -> SearchAsked:
    envelope: dict[str, Any] = {
        "question_id": uuid4(),
        "asked_at": NOW,
        "deadline": NOW + timedelta(seconds=10),
        "reply_to": ReplyTo(topic="answers", partition=0),
        "user_id": "alice",
    }
    whole: dict[str, Any] = envelope | {"text": text} | fields
    return SearchAsked(**whole)


async def found(
    where: VectorIndex,
    question: SearchAsked,
    *,
    weights: Weights | None = None,
    labels: Labels | None = None,
    embedder: HashingEmbedder = EMBEDDER,
) -> Sequence[Hit]:
    ports = SearchPorts(
        embedder, labels or Labels(), RecordsInMemory(), where, weights or Weights()
    )
    return (await search(question, ports)).hits


async def test_topics_place_what_is_about_the_same_where_they_count() -> None:
    there = await index(
        await memory("soup a", topics=("travel",)), await memory("soup b", topics=("food", "work"))
    )
    question, topics = asked("soup", explain=True), Weights(topics=0.4)
    plain = await found(there, question, labels=Labels("food"))
    assert all("topics" not in hit.signals for hit in plain)
    best, other = await found(there, question, weights=topics, labels=Labels("food"))
    assert (best.memory_id, best.signals["topics"]) == ("soup b", 1)
    assert other.signals["topics"] < 1
    assert best.parts["topics"] == pytest.approx(0.4 / 1.6, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "fields", "embedded"),
    [
        (Weights(), {}, ["soup"]),
        (Weights(topics=0.4), {"use_classifiers": False}, ["soup"]),
        (Weights(topics=0.4), {"mode": "lexical"}, []),
        (Weights(topics=0.4), {"mode": "dense"}, ["soup"]),
    ],
)
async def test_topics_that_do_not_count_cost_nothing(
    weights: Weights, fields: dict[str, Any], embedded: Sequence[str]
) -> None:
    there = await index(await memory("soup", topics=("food",)))
    labels, embedder = Labels("food"), CountingEmbedder()
    await found(there, asked("soup", **fields), weights=weights, labels=labels, embedder=embedder)
    assert (labels.asked, embedder.texts) == (0, embedded)


async def test_without_classifiers_importance_counts_nothing() -> None:
    there = await index(
        await memory("soup a", importance=0.1), await memory("soup b", importance=1.0)
    )
    weights = Weights(importance=0.4)
    assert [hit.memory_id for hit in await found(there, asked("soup"), weights=weights)] == [
        "soup b",
        "soup a",
    ]
    off = await found(there, asked("soup", use_classifiers=False), weights=weights)
    assert [hit.memory_id for hit in off] == ["soup a", "soup b"]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
async def test_an_explanation_tells_what_each_signal_added_and_which_words_matched(
    mode: str,
) -> None:
    there = await index(await memory("hot soup", speaker="Ana"), await memory("cold tea"))
    best, *_ = await found(there, asked("did Ana like hot soups?", mode=mode, explain=True))
    assert best.memory_id == "hot soup"
    assert sum(best.parts.values()) == pytest.approx(best.score, abs=1e-5)
    assert best.matched == ("ana", "hot", "soups")
    expected = {"dense": {"dense"}, "lexical": {"lexical"}}.get(
        mode, {"dense", "lexical", "tokens"}
    )
    assert expected <= best.signals.keys()


async def test_an_explanation_tells_the_words_of_a_day_from_those_that_were_said() -> None:
    there = await index(await memory("hot soup", occurred_at=datetime(2026, 4, 3, tzinfo=UTC)))
    (hit,) = await found(there, asked("which soup on Friday, 3 April?", explain=True))
    assert (hit.matched, hit.matched_day) == (("soup",), ("friday", "3", "april"))


async def test_no_word_is_said_to_match_that_was_said_beside_a_memory() -> None:
    heard = await memory("me too", preceding=(Said(text="I am allergic to nuts"),))
    (hit,) = await found(await index(heard), asked("who is allergic?", explain=True))
    assert hit.signals["lexical"] > 0
    assert (hit.matched, hit.matched_day) == ((), ())


async def test_the_words_of_a_relative_time_find_nobody_who_speaks_of_times() -> None:
    there = await index(
        await memory("my knee hurt for the last two weeks", occurred_at=NOW - timedelta(days=200)),
        await memory("the boiler broke", occurred_at=NOW - timedelta(days=7)),
    )
    hits = await found(there, asked("what was last week?", explain=True))
    told = {hit.memory_id: (hit.signals.get("lexical"), hit.matched) for hit in hits}
    assert set(told.values()) == {(None, ())}
    assert {hit.memory_id for hit in hits if hit.signals["ago"]} == {"the boiler broke"}
    assert await found(there, asked("what was last week?", mode="lexical")) == ()


async def test_the_words_of_a_date_find_the_memory_of_that_date() -> None:
    there = await index(
        await memory("the boiler broke", occurred_at=datetime(2025, 11, 8, tzinfo=UTC)),
        await memory("we cooked", occurred_at=NOW),
    )
    for mode in ("hybrid", "lexical"):
        best, *_ = await found(there, asked("on 8 November 2025", mode=mode, explain=True))
        assert (best.memory_id, best.signals["time"]) == ("the boiler broke", 1)
        assert best.signals["lexical"] == 1


async def test_a_question_that_says_a_time_and_nothing_else_finds_what_was_then() -> None:
    others = [
        await memory(f"note {day}", occurred_at=NOW - timedelta(days=day)) for day in range(2, 20)
    ]
    there = await index(
        await memory("the boiler broke", occurred_at=NOW - timedelta(days=1)),
        await memory("we cooked", occurred_at=NOW - timedelta(hours=9)),
        *others,
    )
    hits = await found(there, asked("yesterday", explain=True))
    assert {hit.memory_id for hit in hits[:2]} == {"the boiler broke", "we cooked"}
    assert [hit.signals["ago"] for hit in hits] == [1, 1, *[0] * (len(hits) - 2)]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_what_was_last_week_is_found_among_many_that_are_nearer() -> None:
    others = [
        await memory("what bears ate of pears", memory_id=f"{n}", occurred_at=NOW - 60 * DAY)
        for n in range(DEPTH + 20)
    ]
    there = await index(*others, await memory("the boiler broke", occurred_at=NOW - 7 * DAY))
    question = asked("what was last week?", limit=100)
    told = [hit.memory_id for hit in await found(there, question)]
    assert told[0] == "the boiler broke"
    uncounted = [hit.memory_id for hit in await found(there, question, weights=Weights(ago=0))]
    assert "the boiler broke" not in uncounted


async def test_what_was_a_little_longer_ago_than_the_asker_says_is_found_all_the_same() -> None:
    last_week = [await memory(f"note {n}", occurred_at=NOW - 7 * DAY) for n in range(20)]
    there = await index(*last_week, await memory("the boiler broke", occurred_at=NOW - 16 * DAY))
    best, *_ = await found(there, asked("the boiler broke last week, did it?"))
    assert best.memory_id == "the boiler broke"


async def test_an_unexplained_answer_tells_nothing_of_signals() -> None:
    (hit,) = await found(await index(await memory("soup")), asked("soup"))
    assert (hit.signals, hit.parts, hit.matched) == ({}, {}, ())


@pytest.mark.parametrize(
    ("off", "told"), [(timedelta(hours=-23), 1), (timedelta(days=-2), 0), (timedelta(days=2), 0)]
)
def test_a_question_of_another_day_counts_no_use(off: timedelta, told: int) -> None:
    question = asked("tea", asked_at=NOW + off)
    hit = Hit(memory_id="m", text="tea", version=1, occurred_at=NOW, score=1.0, domain="other")
    answered = SearchAnswered(question_id=question.question_id, hits=(hit,))
    assert len(recalled(question, answered, 3, NOW)) == told


async def test_where_no_memory_is_the_answer_tells_up_to_when_it_was_forgotten() -> None:
    records = RecordsInMemory()
    await records.write([enriched(memory_id="m", version=3), forgotten("m", version=5)])
    envelope = asked("tea").model_dump(include=set(UserQuestion.model_fields))
    own = MemoryAsked(**envelope, memory_id="m")
    gone = await known(own, records, Labels())
    assert (gone.memory, gone.forgotten, gone.forgotten_until) == (None, True, 5)
    never = await known(own.model_copy(update={"memory_id": "n"}), records, Labels())
    assert (never.forgotten, never.forgotten_until) == (False, 0)


async def test_a_user_is_told_with_how_many_memories_there_are() -> None:
    records = RecordsInMemory()
    await records.write([enriched(memory_id="m1"), enriched(memory_id="m2")])
    await records.write([forgotten("m2")])
    envelope: dict[str, Any] = asked("tea").model_dump(include=set(UserQuestion.model_fields))
    told = [
        await newest(NewestAsked.model_validate(envelope | {"user_id": user}), records)
        for user in ("alice", "nobody")
    ]
    assert [(each.memories, each.version > 0) for each in told] == [(1, True), (0, False)]


async def test_an_explanation_tells_which_times_were_read() -> None:
    where = await index(await memory("soup"))
    ports = SearchPorts(EMBEDDER, Labels(), RecordsInMemory(), where, Weights())
    told = await search(asked("what was yesterday?", explain=True), ports)
    assert [(named.since, named.until) for named in told.times] == [(NOW - DAY, NOW)]
    assert (await search(asked("what was yesterday?"), ports)).times == ()
