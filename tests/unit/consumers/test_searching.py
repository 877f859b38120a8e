"""The query desk's search: what is asked for, what was set up, and what is told where it fails."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from consumers import query
from pipeline.aside import aside
from pipeline.domain.reordering import placed
from pipeline.domain.weights import Weights
from pipeline.errors import Refused, Unavailable
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.searching.search import MOST_TOKENS, Rereading, understood, unlike
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.search import Hit, ReplyTo, SearchAnswered, SearchAsked
from tests.builders import direction, enriched, vectors_in_memory

TEXTS = ("thai food is hot", "thai food is so hot", "thai food", "we cook on sundays")


class PrefersLong:
    """Reads again, and finds the longest text the best."""

    model = "prefers-long"

    def __init__(self) -> None:
        self.read: list[str] = []

    async def scores(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        self.read += texts
        return [len(text) / 1_000 for text in texts]

    async def close(self) -> None: ...


class Fails(PrefersLong):
    async def scores(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        raise Unavailable("the model failed")


class Dawdles(PrefersLong):
    async def scores(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")


async def search(
    reranker: PrefersLong | None = None,
    *,
    depth: int = 30,
    weight: float = 1.0,
    patience_s: float = 30,
    **fields: Any,
) -> SearchAnswered:
    embedder = HashingEmbedder()
    vectors = vectors_in_memory(embedder.model, embedder.dimensions)
    (said,) = await asyncio.gather(embedder.embed(TEXTS))
    await vectors.write(
        [
            enriched(
                text,
                memory_id=f"m{i}",
                model=embedder.model,
                vector=seen.text,
                tokens=seen.tokens,
                topic_rows=[direction("food", 384)],
            )
            for i, (text, seen) in enumerate(zip(TEXTS, said, strict=True))
        ]
    )
    # The reranker alone decides, but where a test says otherwise.
    rereading = Rereading(reranker, depth, weight) if reranker else None
    desk = query.stage(
        embedder, HeuristicClassifier(), RecordsInMemory(), vectors, Weights(), rereading
    )
    now = datetime.now(UTC)
    question: dict[str, Any] = {
        "question_id": uuid4(),
        "asked_at": now,
        "deadline": now + timedelta(seconds=patience_s),
        "reply_to": ReplyTo(topic="memory.search.answered", partition=0),
        "user_id": "alice",
        "text": "thai food",
    }
    answered = await desk.answer(SearchAsked(**(question | fields)))
    assert isinstance(answered, SearchAnswered)
    return answered


def ids(answered: SearchAnswered) -> list[str]:
    return [hit.memory_id for hit in answered.hits]


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
async def test_the_best_are_read_again_worded_as_the_embedder_reads_them(mode: str) -> None:
    reranker = PrefersLong()
    answered = await search(reranker, mode=mode, depth=3)
    plain = await search(mode=mode)
    best = set(ids(plain)[:3])
    assert ids(answered)[0] == "m1"
    assert set(ids(answered)[:3]) == best
    assert ids(answered)[3:] == ids(plain)[3:]
    assert all(text.startswith("(") for text in reranker.read)
    assert answered.degraded is None


async def test_a_reranker_counts_as_much_as_it_was_given() -> None:
    plain, alone = ids(await search()), ids(await search(PrefersLong()))
    assert ids(await search(PrefersLong(), weight=0.0)) == plain != alone


async def test_fewer_may_be_told_than_were_read() -> None:
    reranker = PrefersLong()
    assert ids(await search(reranker, limit=1)) == ["m1"]
    assert len(reranker.read) == len(TEXTS)


async def test_whoever_says_no_is_not_reranked() -> None:
    reranker = PrefersLong()
    assert ids(await search(reranker, rerank=False)) == ids(await search())
    assert not reranker.read


async def test_asking_for_what_is_not_set_up_is_refused_and_says_what_to_set() -> None:
    with pytest.raises(Refused, match="RERANKER_MODEL"):
        await search(rerank=True)
    assert (await search()).degraded is None


async def test_an_explained_hit_tells_what_the_reranker_gave() -> None:
    explained, plain = await search(PrefersLong(), explain=True), await search(PrefersLong())
    assert all("rerank" in hit.signals for hit in explained.hits)
    assert [hit.score for hit in explained.hits] == [hit.score for hit in plain.hits]


async def test_a_reranker_that_fails_costs_its_order_and_not_the_answer() -> None:
    answered = await search(Fails(), rerank=True)
    assert ids(answered) == ids(await search())
    assert answered.degraded == "not reranked: the model failed"


async def test_a_reranker_is_not_waited_for_longer_than_the_asker_waits() -> None:
    answered = await search(Dawdles(), patience_s=0.5)
    assert ids(answered) == ids(await search())
    assert "took more than" in (answered.degraded or "")


async def test_what_says_the_same_makes_room_where_that_is_asked_for() -> None:
    plain, diverse = await search(limit=3), await search(limit=3, diversity=0.8)
    assert "m3" not in ids(plain)
    assert (ids(diverse)[0], "m3" in ids(diverse)) == (ids(plain)[0], True)
    assert ids(await search(limit=3, diversity=0.0)) == ids(plain)


async def test_comparing_long_texts_lets_others_in_between() -> None:
    now = datetime.now(UTC)
    asked = SearchAsked(
        question_id=uuid4(),
        asked_at=now,
        deadline=now,
        reply_to=ReplyTo(topic="answers", partition=0),
        user_id="alice",
        text="food",
        diversity=0.5,
    )
    hits = [
        Hit(
            memory_id=f"m{i}",
            text=" ".join(f"w{i}x{n}" for n in range(2_000))[:16_000],
            occurred_at=now,
            version=1,
            domain="other",
            score=0.5,
        )
        for i in range(20)
    ]
    comparing = asyncio.create_task(unlike(asked, placed(hits)))
    await asyncio.sleep(0)
    await aside(lambda: None)
    assert not comparing.done()
    assert len(await comparing) == asked.limit


def long_question(words: int) -> SearchAsked:
    now = datetime.now(UTC)
    return SearchAsked(
        question_id=uuid4(),
        asked_at=now,
        deadline=now + timedelta(seconds=9),
        reply_to=ReplyTo(topic="answers", partition=0),
        user_id="alice",
        text=" ".join(f"w{n}" for n in range(words)),
    )


async def test_of_a_long_question_so_many_tokens_are_matched_as_one_search_may_cost() -> None:
    for words, most in ((9, 9), (2_000, MOST_TOKENS)):
        asked = long_question(words)
        made = await understood(asked, HashingEmbedder(), HeuristicClassifier(), Weights())
        assert len(made.embedding.tokens) == most


async def test_tokens_that_do_not_count_are_not_matched() -> None:
    without = Weights(tokens=0.0)
    made = await understood(long_question(9), HashingEmbedder(), HeuristicClassifier(), without)
    assert not len(made.embedding.tokens)
