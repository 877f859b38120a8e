"""What an answer is kept under, and what is left of it in a cache."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from consumers.query import told_apart
from pipeline.domain.weights import Weights
from pipeline.ports import MemoryVectors
from pipeline.stores.answers import KeptAnswers
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.caches import Caches
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import IndexShape
from pipeline.stores.points_in_memory import PointsInMemory
from schemas.search import SearchAnswered, SearchAsked, SearchFilter
from tests.builders import DIMENSIONS, MODEL, enriched, forgotten, user_forgotten, vectors_in_memory
from tests.unit.stores.interleaving import ask as asking
from tests.unit.stores.interleaving import question


class Told(CacheInMemory):
    """A Redis, looked into."""

    @property
    def values(self) -> list[bytes]:
        return [value for _, value in self._entries.values()]

    @property
    def keys(self) -> list[str]:
        return list(self._entries)


@pytest.fixture
def redis() -> Told:
    return Told()


@pytest.fixture
def vectors() -> MemoryVectors:
    return vectors_in_memory(MODEL, DIMENSIONS)


def key_of(*, recency: float = 0.0, use: float = 0.0, **fields: Any) -> str | None:
    asked = question("alice", {"text": "tea or coffee"} | fields)
    return told_apart(asked, Weights(recency=recency, use=use))


async def ask(
    vectors: MemoryVectors, redis: Told, user_id: str = "alice", **fields: Any
) -> SearchAnswered:
    asked = question(user_id, {"text": "tea or coffee"} | fields)
    return await asking(asked, vectors, Caches(None, redis, shares_answers=True))


async def test_the_same_question_is_answered_from_what_was_kept(
    vectors: MemoryVectors, redis: Told
) -> None:
    await vectors.write([enriched("I drink tea", memory_id="m")])
    first, second = await ask(vectors, redis), await ask(vectors, redis)
    assert (first.kept, second.kept) == (False, True)
    assert second.hits == first.hits
    assert [hit.text for hit in second.hits] == ["I drink tea"]


async def test_what_was_revised_or_forgotten_a_moment_ago_is_not_shown(
    vectors: MemoryVectors, redis: Told
) -> None:
    await vectors.write([enriched("I drink tea", memory_id="m", version=1)])
    await ask(vectors, redis)
    await vectors.write([enriched("I drink coffee", memory_id="m", version=2)])
    assert [hit.text for hit in (await ask(vectors, redis)).hits] == ["I drink coffee"]
    await vectors.write([forgotten("m", version=3)])
    assert not (await ask(vectors, redis)).hits
    await vectors.write([enriched("Tea again", memory_id="n", version=4)])
    assert [hit.text for hit in (await ask(vectors, redis)).hits] == ["Tea again"]
    await vectors.write([user_forgotten(version=5)])
    assert not (await ask(vectors, redis)).hits


async def test_even_a_generation_that_came_back_shows_nothing_forgotten(
    redis: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = vectors_in_memory(MODEL, DIMENSIONS)
    generation = uuid4()

    async def always(_: str) -> Any:
        return generation

    monkeypatch.setattr(vectors.generations, "of", always)
    await vectors.write([enriched("I drink tea", memory_id="m", version=1)])
    await ask(vectors, redis)
    await vectors.write([forgotten("m", version=2)])
    assert not (await ask(vectors, redis)).hits


async def test_nobody_is_answered_with_anothers_memories(
    vectors: MemoryVectors, redis: Told
) -> None:
    mine = enriched("I drink tea", memory_id="m")
    await vectors.write([mine, enriched("Secret", user_id="bob", memory_id="m")])
    answers = KeptAnswers(vectors, redis, "")
    place = await answers.place("bob", "?")
    assert place is not None
    await answers.keep(place, (await ask(vectors, redis, "bob")).hits)
    assert not await answers.recall(replace(place, user_id="alice"))
    own = await answers.place("alice", "?")
    assert own is not None
    assert own.key != place.key


async def test_a_cache_holds_no_word_of_a_memory_a_question_or_a_user(
    vectors: MemoryVectors, redis: Told
) -> None:
    await vectors.write([enriched("I drink tea", memory_id="my-id", speaker="Ana")])
    await ask(vectors, redis)
    told = b" ".join([*redis.values, *(key.encode() for key in redis.keys)])
    for word in (b"tea", b"my-id", b"Ana", b"alice", b"coffee"):
        assert word not in told


async def test_garbage_in_the_cache_is_a_miss(vectors: MemoryVectors, redis: Told) -> None:
    await vectors.write([enriched("I drink tea", memory_id="m")])
    first = await ask(vectors, redis)
    for value in (b"junk", b"[]x", b'[{"key": 1}]', b"\xff"):
        await redis.put_many(dict.fromkeys(redis.keys, value), ttl_s=60)
        assert (await ask(vectors, redis)).hits == first.hits


async def test_a_user_who_was_never_written_to_is_not_kept_anything_for(redis: Told) -> None:
    many_processes = VectorIndex(PointsInMemory(), IndexShape(MODEL, DIMENSIONS))
    for _ in range(2):
        assert not (await ask(many_processes, redis, "nobody")).kept


DIFFERENT: list[dict[str, Any]] = [
    {"text": "Tea or coffee"},
    {"mode": "dense"},
    {"mode": "lexical"},
    {"limit": 3},
    {"min_score": 0.0},
    {"min_score": 0.5},
    {"filter": SearchFilter(domain="coding")},
    {"filter": SearchFilter(topics=("a",))},
    {"filter": SearchFilter(topics=("a", "b"))},
    {"filter": SearchFilter(speaker="a")},
    {"filter": SearchFilter(run_id="a")},
    {"filter": SearchFilter(metadata={"a": 1})},
    {"filter": SearchFilter(metadata={"a": True})},
    {"filter": SearchFilter(metadata={"a": "1"})},
]


def test_questions_that_differ_are_told_apart() -> None:
    keys = [key_of(), *(key_of(**fields) for fields in DIFFERENT)]
    assert len(set(keys)) == len(keys)
    assert None not in keys


def test_every_field_of_a_question_tells_it_apart_unless_it_says_who_asks_when() -> None:
    asked = question("alice", {"text": "tea"})
    key = told_apart(asked, Weights())
    assert key is not None
    envelope = {"question_id", "asked_at", "deadline", "reply_to", "recall"}
    assert set(SearchAsked.model_fields) - envelope == {
        name for name in SearchAsked.model_fields if f'"{name}":' in key
    }


def test_of_the_time_only_what_the_question_names_matters() -> None:
    asked = question("alice", {"text": "tea"})
    later: dict[str, Any] = {"asked_at": asked.asked_at + timedelta(days=40)}
    assert key_of() == key_of(**later, question_id=uuid4())
    for text in ("what did I drink last week?", "what did I drink yesterday?"):
        assert key_of(text=text) != key_of(text=text, **later)
    assert key_of(text="on 8 May 2023?") == key_of(text="on 8 May 2023?", **later)


def test_an_answer_that_ages_or_tells_words_is_not_kept() -> None:
    assert key_of(recency=0.1) is None
    assert key_of(use=0.1) is None
    assert key_of(filter=SearchFilter(tiers=("long",))) is None
    assert key_of(explain=True) is None
