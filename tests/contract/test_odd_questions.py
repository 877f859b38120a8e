"""Questions and users that a search trips over, as the desk answers them from every index."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from pipeline.domain.lexical import lexical_vector
from pipeline.domain.ranking import DEPTH
from pipeline.domain.weights import Weights
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.ports import MemoryVectors
from pipeline.searching.search import SearchPorts, search
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import MemoryEnriched
from schemas.search import MAX_LIMIT, Hit, Mode, ReplyTo, SearchAsked
from tests.builders import DIMENSIONS, enriched

WHEN = datetime(2026, 5, 1, tzinfo=UTC)
EMBEDDER, LABELS = HashingEmbedder(DIMENSIONS), HeuristicClassifier()
MODES: Sequence[Mode] = ("hybrid", "dense", "lexical")
WORDLESS = ("hybrid", "dense")
"""Modes that need no word in common."""


async def said(*texts: str, ids: Sequence[str] = (), **fields: Any) -> list[MemoryEnriched]:
    """Memories of alice as the stages make them; without `ids` named by their place."""
    seen = await EMBEDDER.embed(texts)
    named = ids or [f"m{number:04}" for number in range(len(texts))]
    made = [
        enriched(
            text,
            memory_id=name,
            vector=own.text,
            tokens=own.tokens,
            topic_rows=np.zeros((0, DIMENSIONS)),
            **{"occurred_at": WHEN, "published_at": WHEN} | fields,
        )
        for name, text, own in zip(named, texts, seen, strict=True)
    ]
    return [each.model_copy(update={"lexical_vector": lexical_vector(each)}) for each in made]


async def asked(vectors: MemoryVectors, text: str, **fields: Any) -> Sequence[Hit]:
    question: dict[str, Any] = {
        "question_id": uuid4(),
        "asked_at": WHEN,
        "deadline": WHEN + timedelta(seconds=10),
        "reply_to": ReplyTo(topic="answers", partition=0),
        "user_id": "alice",
        "text": text,
    }
    answered = await search(
        SearchAsked(**question | fields),
        SearchPorts(EMBEDDER, LABELS, RecordsInMemory(), vectors, Weights()),
    )
    return answered.hits


async def found(vectors: MemoryVectors, text: str, **fields: Any) -> list[str]:
    return [hit.text for hit in await asked(vectors, text, **fields)]


THAI, LAKE, CHINESE, ARABIC, PEPPER = (
    "I love spicy Thai food",
    "We went to the lake on Sunday",
    "我 喜欢 泰国菜",
    "أحب الطعام التايلاندي",
    "🌶️",
)


async def test_a_question_without_a_telling_word_is_answered_by_meaning(
    vectors: MemoryVectors,
) -> None:
    await vectors.write(await said(THAI, LAKE))
    for question in ("what did you do with it?", "the", "?!", "…", "and why?"):
        for mode in WORDLESS:
            assert set(await found(vectors, question, mode=mode)) == {THAI, LAKE}
        assert await found(vectors, question, mode="lexical") == []


async def test_one_word_in_any_script_finds_what_has_it(vectors: MemoryVectors) -> None:
    await vectors.write(await said(THAI, LAKE, CHINESE, ARABIC, PEPPER))
    for question, best in (
        ("lake", LAKE),
        ("Lakes?", LAKE),
        ("Thai", THAI),
        ("泰国菜", CHINESE),
        ("喜欢 什么", CHINESE),
        ("الطعام", ARABIC),
        ("🌶️", PEPPER),
    ):
        assert await found(vectors, question, mode="lexical") == [best]
        assert (await found(vectors, question))[0] == best


async def test_what_no_word_answers_is_still_answered_in_full(vectors: MemoryVectors) -> None:
    everything = {THAI, LAKE, CHINESE, ARABIC, PEPPER}
    await vectors.write(await said(*everything))
    for question in ("🦜🦜🦜", "⋆", "zyzzyva", "什么", "مرحبا", "\u200d"):
        for mode in WORDLESS:
            assert set(await found(vectors, question, mode=mode)) == everything, question
        assert await found(vectors, question, mode="lexical") == [], question


async def test_who_has_one_memory_gets_that_one(vectors: MemoryVectors) -> None:
    await vectors.write(await said(LAKE))
    for mode in MODES:
        (hit,) = await asked(vectors, "Which lake?", mode=mode, limit=MAX_LIMIT, diversity=0.5)
        assert (hit.text, 0 < hit.score <= 1) == (LAKE, True)


async def test_nobody_gets_nothing(vectors: MemoryVectors) -> None:
    for mode in MODES:
        assert await asked(vectors, "Which lake?", mode=mode) == (), "the index is empty"
    await vectors.write(await said(LAKE))
    for mode in MODES:
        assert await asked(vectors, "Which lake?", mode=mode, user_id="carol") == ()


async def test_of_more_than_are_looked_at_the_best_is_found(vectors: MemoryVectors) -> None:
    many = [f"note {number} of the harbour" for number in range(2 * DEPTH)]
    await vectors.write(await said(*many, LAKE))
    for mode in MODES:
        assert (await found(vectors, "lake sunday", mode=mode))[0] == LAKE
        hits = await asked(vectors, "note of the harbour", mode=mode, limit=MAX_LIMIT)
        assert len(hits) == MAX_LIMIT
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("number", [5, DEPTH + 50])
async def test_what_says_the_same_comes_in_the_order_of_its_ids(
    vectors: MemoryVectors, number: int
) -> None:
    names = [f"m{n:04}" for n in range(number)]
    scattered = [names[n * 7 % number] for n in range(number)]
    await vectors.write(await said(*[LAKE] * number, ids=scattered))
    for mode in MODES:
        for limit in (3, 5):
            hits = await asked(vectors, "Which lake?", mode=mode, limit=limit)
            assert [hit.memory_id for hit in hits] == names[:limit]
            assert len({hit.score for hit in hits}) == 1


async def test_the_long_is_remembered_found_and_asked(vectors: MemoryVectors) -> None:
    told = {
        f"{name} {text}"[:8_000].strip()
        for name, text in {
            "Ana": "the harbour at night " * 400,
            "Bo": "x" * 8_000,
            "Cleo": "泰国菜" * 2_667,
            "Dan": "🌶️" * 4_000,
            "Eve": " ".join(f"word{n}" for n in range(1_000)),
        }.items()
    }
    await vectors.write(await said(*told, LAKE))
    for long in told:
        for mode in MODES:
            assert long in await found(vectors, long.split()[0], mode=mode)
            assert (await found(vectors, long, mode=mode))[0] == long


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
async def test_the_best_of_many_that_share_words_is_told_first(
    vectors: MemoryVectors, mode: Mode
) -> None:
    """More than are looked at, all of which words speak for, each a little more than the one before."""
    shared, many = "spicy thai green curry noodles lime", DEPTH + 20
    longer = [f"{shared} {'meadow ' * (many - number)}" for number in range(many)]
    others = [f"nothing of it {number}" for number in range(many)]
    await vectors.write(await said(*longer, *others))
    hits = await asked(vectors, shared, mode=mode, limit=1)
    assert hits[0].memory_id == f"m{many - 1:04}"
