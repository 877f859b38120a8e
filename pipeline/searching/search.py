"""A question -> the hits: found by meaning and words, weighed, read again where a reranker is set up.

The index finds, the ranking weighs, a cross-encoder reads the best again. Of a moment in the past the index
is told which states to look at instead.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import structlog

from pipeline.aside import aside, in_slices
from pipeline.domain.lexical import question_terms, question_words, shared_words
from pipeline.domain.ranking import DEPTH, Heard, ranked, words_of
from pipeline.domain.reordering import POOL, Placed, compared, diversified, placed, reranked
from pipeline.domain.tiers import Tiers
from pipeline.domain.times import periods, untimed
from pipeline.domain.weights import Weights
from pipeline.domain.wording import day_for_terms, worded
from pipeline.errors import Refused, Unavailable
from pipeline.ports import (
    Classifier,
    Embedder,
    Embedding,
    MemoryRecords,
    MemoryVectors,
    Past,
    Question,
    Reranker,
)
from pipeline.searching.past import believed, still_told
from schemas.search import Hit, NamedTime, SearchAnswered, SearchAsked

MOST_TOKENS = 256
"""Of one question, matched token by token: each is compared with each token of some hundreds of candidates."""
MOST_TOPICS = 32
"""Of one question, as of one memory."""
SHARE_OF_PATIENCE = 0.7
"""Of the time that the asker still waits: so long the reranker may take, and the answer goes without it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rereading:
    """Who reads the best hits again, how many, and how much that counts beside the ranking, 0 to 1."""

    by: Reranker
    depth: int
    weight: float

    async def close(self) -> None:
        await self.by.close()


@dataclass(frozen=True, slots=True)
class SearchPorts:
    """What answers a question, and what counts for that."""

    embedder: Embedder
    classifier: Classifier
    records: MemoryRecords
    vectors: MemoryVectors
    weights: Weights
    rereading: Rereading | None = None
    tiers: Tiers | None = None

    def wanted_by(self, asked: SearchAsked) -> "SearchPorts":
        """The same, without what the asker does without. Raises Refused where there is no reranker to ask."""
        if asked.rerank and self.rereading is None:
            raise Refused(
                "rerank: no reranker is set up here: set RERANKER_MODEL for the query consumer, to a "
                "cross-encoder's name on the hub or its folder, or ask without `rerank`."
            )
        return replace(
            self,
            weights=self.weights if asked.use_classifiers else self.weights.without_classifiers(),
            rereading=self.rereading if asked.rerank is not False else None,
        )


async def search(asked: SearchAsked, ports: SearchPorts) -> SearchAnswered:
    """The memories of the asker's user that answer the question best."""
    ports = ports.wanted_by(asked)
    began = time.perf_counter()
    question = await understood(asked, ports.embedder, ports.classifier, ports.weights)
    embedded = time.perf_counter()
    past = await believed(asked, ports.embedder, ports.classifier, ports.records, ports.weights)
    hits = await found(asked, question, ports, past)
    searched = time.perf_counter()
    ranking, degraded = await reread(asked, placed(hits), ports.rereading)
    read = time.perf_counter()
    told = await unlike(asked, ranking)
    if asked.explain:
        words = question_words(untimed(asked.text, asked.asked_at))
        told = await in_slices(lambda some: matching(words, some), told, lambda hit: len(hit.text))
    if past is not None:
        told = await still_told(asked.user_id, told, past, ports.records)
    return SearchAnswered(
        question_id=asked.question_id,
        hits=tuple(told),
        embed_ms=(embedded - began) * 1_000,
        search_ms=(searched - embedded + time.perf_counter() - read) * 1_000,
        rerank_ms=(read - searched) * 1_000 if ports.rereading else 0.0,
        degraded=degraded,
        times=named_times(asked) if asked.explain else (),
    )


async def found(
    asked: SearchAsked, question: Question, ports: SearchPorts, past: Past | None
) -> Sequence[Hit]:
    """The best of what the index finds, before anybody reads it again."""
    most = _looked_at(asked, ports.rereading)
    if asked.mode == "dense":
        return await closest(asked, question, ports.vectors, most, past)
    candidates = await ports.vectors.candidates(
        asked.user_id,
        question,
        filter=asked.filter,
        mode=asked.mode,
        depth=max(DEPTH, most),
        past=past,
    )
    return ranked(
        candidates,
        Heard(words_of(asked.text), periods(asked.text, asked.asked_at), asked.asked_at),
        ports.weights,
        tiers=ports.tiers,
        limit=most,
        min_score=asked.min_score,
        explain=asked.explain,
    )


def named_times(asked: SearchAsked) -> tuple[NamedTime, ...]:
    """The times that the question names, as the asker is told them."""
    return tuple(
        NamedTime(
            since=period.since.replace(tzinfo=UTC),
            until=period.until.replace(tzinfo=UTC),
            every_year=period.every_year,
        )
        for period in periods(asked.text, asked.asked_at)
    )


def _looked_at(asked: SearchAsked, rereading: Rereading | None) -> int:
    """How many of the best are needed, so that those which are told can be chosen from them."""
    return max(asked.limit, rereading.depth if rereading else 0, POOL if asked.diversity else 0)


async def understood(
    asked: SearchAsked, embedder: Embedder, classifier: Classifier, weights: Weights
) -> Question:
    """The question as the index is asked it. Vectors cost a model's time: only those that count."""
    terms = question_terms(untimed(asked.text, asked.asked_at))
    then = [
        period
        for period in periods(asked.text, asked.asked_at)
        if (weights.ago if period.ago else weights.time)
    ]
    if asked.mode == "lexical":
        return Question(Embedding.nowhere(embedder.dimensions), terms, periods=then)
    labels: Sequence[str] = ()
    if weights.topics and asked.mode == "hybrid":
        (classified,) = await asyncio.to_thread(classifier.classify, [asked.text])
        labels = classified.topics[:MOST_TOPICS]
    own, *topics = await embedder.embed([asked.text, *labels])
    return Question(
        replace(own, tokens=own.tokens[: MOST_TOKENS if weights.tokens else 0]),
        terms,
        np.stack([topic.text for topic in topics]) if topics else None,
        then,
    )


async def closest(
    asked: SearchAsked,
    question: Question,
    vectors: MemoryVectors,
    limit: int,
    past: Past | None,
) -> Sequence[Hit]:
    """What lies closest by meaning alone; the score is the cosine."""
    hits = await vectors.search(
        asked.user_id,
        question.embedding,
        filter=asked.filter,
        limit=limit,
        min_score=asked.min_score,
        past=past,
    )
    if not asked.explain:
        return hits
    return [
        hit.model_copy(update={"signals": {"dense": hit.score}, "parts": {"dense": hit.score}})
        for hit in hits
    ]


async def reread(
    asked: SearchAsked, ranking: Sequence[Placed], rereading: Rereading | None
) -> tuple[Sequence[Placed], str | None]:
    """The ranking as the reranker sees it; else as it was, and why.

    What was found is a whole answer: that it could not be put in a better order must not cost the asker
    all of it, but must be said.
    """
    if rereading is None:
        return ranking, None
    texts = [worded(one.hit) for one in ranking[: rereading.depth]]
    patience_s = (asked.deadline - datetime.now(UTC)).total_seconds() * SHARE_OF_PATIENCE
    try:
        async with asyncio.timeout(patience_s):
            given = await rereading.by.scores(asked.text, texts)
    except (Unavailable, TimeoutError) as error:
        why = str(error) or f"it took more than {max(patience_s, 0):.1f} s"
        log.warning("not reranked", reason=why, question_id=str(asked.question_id))
        return ranking, f"not reranked: {why}"
    return reranked(ranking, given, rereading.weight, explain=asked.explain), None


async def unlike(asked: SearchAsked, ranking: Sequence[Placed]) -> Sequence[Hit]:
    """What is told of the ranking."""
    if not asked.diversity:
        return [one.hit for one in ranking[: asked.limit]]
    # A hundred of the longest texts take seconds to read, and some hundredths of one to compare.
    terms = await in_slices(compared, ranking, lambda one: len(one.hit.text))
    told = await aside(lambda: diversified(ranking, terms, asked.diversity, limit=asked.limit))
    return [one.hit for one in told]


def matching(words: Mapping[str, Sequence[int]], hits: Sequence[Hit]) -> Sequence[Hit]:
    """The hits, each with those of the question's words that it has, and those that its day has.

    A word that it has by what was said beside it stands in neither: whoever tells a hit does not know that.
    """
    return [
        hit.model_copy(
            update={
                "matched": shared_words(words, f"{hit.speaker or ''} {hit.text}"),
                "matched_day": shared_words(words, day_for_terms(hit.occurred_at)),
            }
        )
        for hit in hits
    ]
