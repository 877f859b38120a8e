"""memory.search.asked -> the asker's reply topic, memory.recalled: answer what is asked about one user's memories.

Thin: the index finds, the ranking weighs, a cross-encoder reads the best again where one is set up, the
record knows. An unknown user has no memories, which is an answer.
What was asked before is answered as it was, where nothing of its user has changed since.
What an answer tells first counts as recalled, so that it may rise; that is told once the answer has left.
Safe to repeat: asking changes nothing, and one question asked twice is one recall.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from uuid import UUID, uuid5

import numpy as np
import structlog

from pipeline.domain.clock import version_at
from pipeline.domain.lexical import question_terms, shared_words
from pipeline.domain.ranking import DEPTH, Heard, ranked, words_of
from pipeline.domain.receipts import summed
from pipeline.domain.reordering import POOL, Placed, diversified, placed, reranked
from pipeline.domain.tiers import Tiers
from pipeline.domain.times import periods
from pipeline.domain.weights import Weights
from pipeline.domain.wording import worded
from pipeline.errors import Refused, Unavailable
from pipeline.models.seen import Remembering
from pipeline.ports import (
    Believed,
    Classifier,
    Embedder,
    MemoryRecords,
    MemoryVectors,
    Past,
    PastState,
    Question,
    Reranker,
)
from pipeline.stage import Desk
from pipeline.stores.answers import KeptAnswers
from pipeline.stores.conditions import Every
from pipeline.stores.past import past_payload
from pipeline.stores.points import leaves, searched
from pipeline.stores.tiers import Caches
from schemas.events import MemoryCaptured, MemoryClassified, MemoryRecalled, Outcome
from schemas.search import (
    Answered,
    Asked,
    Hit,
    KnownMemory,
    MemoryAnswered,
    MemoryAsked,
    NewestAnswered,
    NewestAsked,
    ReceiptsAnswered,
    ReceiptsAsked,
    ReceiptState,
    SearchAnswered,
    SearchAsked,
)
from schemas.topics import ASKED, OPERATOR_ASKED, RECALLED

MOST_TOPICS = 32
"""Of one question, as of one memory."""
MOST_WRITTEN = 100_000
"""Memories newer than a moment in the past, looked up in the audit trail: nearly a second of the record's."""
MOST_CHANGED = 2_000
"""Of those, memories that there were then, looked through for what a filter leaves."""
MOST_EMBEDDED = 256
"""Of those, embedded to answer one question: a second or two, and then they are kept for the next."""
RERANK_DEPTH = 30
"""Hits that are read again, unless said otherwise."""
CLOCKS_DIFFER_BY = timedelta(days=1)
"""A question that says it was asked longer ago, or so much later, counts no use."""
SHARE_OF_PATIENCE = 0.7
"""Of the time that the asker still waits: so long the reranker may take, and the answer goes without it."""

_OF_THE_ENVELOPE = {"question_id", "asked_at", "deadline", "reply_to", "recall"}
"""What differs between two askings of one question, and what changes nothing in its answer."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """Who reads the best hits again, and how many."""

    by: Reranker
    depth: int


def stage(
    embedder: Embedder,
    classifier: Classifier,
    records: MemoryRecords,
    vectors: MemoryVectors,
    weights: Weights,
    reranker: Reranker | None = None,
    rerank_depth: int = RERANK_DEPTH,
    caches: Caches | None = None,
    tiers: Tiers | None = None,
) -> Desk:
    """The query desk."""
    reading = Reading(reranker, rerank_depth) if reranker else None
    answers = None
    if caches is not None:
        embedder = Remembering(embedder, caches.vectors)
        answers = KeptAnswers.of(caches, vectors)
    # The first question that names a time would wait for most of a second while this is imported.
    periods("on 8 May 2023", datetime.now(UTC))

    async def anew(asked: SearchAsked) -> SearchAnswered:
        return await search(asked, embedder, classifier, records, vectors, weights, reading, tiers)

    async def answer(asked: Asked) -> Answered:
        match asked:
            case SearchAsked():
                return await as_before(asked, answers, weights, anew)
            case ReceiptsAsked():
                return await receipts(asked, records, vectors)
            case MemoryAsked():
                return await known(asked, records, classifier)
            case NewestAsked():
                newest = await records.newest(asked.user_id)
                return NewestAnswered(question_id=asked.question_id, version=newest)
            case _:
                raise Refused(
                    f"{asked.type} is an operator's question: it is asked on the topic "
                    f"{OPERATOR_ASKED.name}, below the same prefix."
                )

    def following(asked: Asked, answered: Answered) -> Sequence[MemoryRecalled]:
        most = (tiers or Tiers()).recalled_hits
        return recalled(asked, answered, most, datetime.now(UTC))

    return Desk(name="query", reads=ASKED, answer=answer, tells=RECALLED, following=following)


def recalled(
    asked: Asked, answered: Answered, most: int, now: datetime
) -> Sequence[MemoryRecalled]:
    """What the answer tells first, unless its asker only looks, looks back, or asks as of another day."""
    if not (isinstance(asked, SearchAsked) and isinstance(answered, SearchAnswered)):
        return ()
    # `asked_at` is anything that the asker says: a use is counted in its hour, and none lies ahead.
    if abs(asked.asked_at - now) > CLOCKS_DIFFER_BY:
        return ()
    return [
        MemoryRecalled(
            # The same for the same question: whoever gets no answer in time asks it again.
            event_id=uuid5(asked.question_id, hit.memory_id),
            user_id=asked.user_id,
            memory_id=hit.memory_id,
            version=hit.version,
            published_at=asked.asked_at,
            at=asked.asked_at,
        )
        for hit in answered.hits[: most if asked.recall and asked.as_of is None else 0]
    ]


async def as_before(
    asked: SearchAsked,
    answers: KeptAnswers | None,
    weights: Weights,
    anew: Callable[[SearchAsked], Awaitable[SearchAnswered]],
) -> SearchAnswered:
    """What an equal question was answered with, if that is still right; else the answer anew."""
    question = told_apart(asked, weights)
    if answers is None or question is None:
        return await anew(asked)
    began = time.perf_counter()
    # Before the search: what is written while it runs makes another place.
    place = await answers.place(asked.user_id, question)
    hits = await answers.recall(place) if place else None
    if hits is not None:
        took_ms = (time.perf_counter() - began) * 1_000
        return SearchAnswered(
            question_id=asked.question_id, hits=tuple(hits), search_ms=took_ms, kept=True
        )
    answered = await anew(asked)
    if place and answered.degraded is None:
        await answers.keep(place, answered.hits)
    return answered


def told_apart(asked: SearchAsked, weights: Weights) -> str | None:
    """Equal for two questions only if they have the same answer while nothing is written.

    Everything that is asked, whatever fields it has, but when: of that only the periods which the
    question names. None where the answer is another one in a moment, tells words of memories, or comes
    from the record, too, whose writes nobody hears of here.
    """
    if asked.as_of or weights.recency or weights.use or asked.explain or asked.filter.names_tiers:
        return None
    named = periods(asked.text, asked.asked_at)
    return f"{asked.model_dump_json(exclude=_OF_THE_ENVELOPE)} {named!r}"


async def search(
    asked: SearchAsked,
    embedder: Embedder,
    classifier: Classifier,
    records: MemoryRecords,
    vectors: MemoryVectors,
    weights: Weights,
    reading: Reading | None = None,
    tiers: Tiers | None = None,
) -> SearchAnswered:
    """The memories of the asker's user that answer the question best."""
    reading = _wanted(asked, reading)
    began = time.perf_counter()
    counted = weights if asked.use_classifiers else weights.without_classifiers()
    question = await understood(asked, embedder, classifier, counted)
    embedded = time.perf_counter()
    past = await believed(asked, embedder, classifier, records, counted)
    find = closest if asked.mode == "dense" else weighed
    hits = await find(asked, question, vectors, counted, tiers, _looked_at(asked, reading), past)
    searched = time.perf_counter()
    ranking, degraded = await reread(asked, placed(hits), reading)
    read = time.perf_counter()
    told = await unlike(asked, ranking)
    if asked.explain:
        # Long texts take milliseconds each.
        told = await asyncio.to_thread(matching, asked.text, told)
    if past is not None:
        told = await still_told(asked.user_id, told, past, records)
    return SearchAnswered(
        question_id=asked.question_id,
        hits=tuple(told),
        embed_ms=(embedded - began) * 1_000,
        search_ms=(searched - embedded + time.perf_counter() - read) * 1_000,
        rerank_ms=(read - searched) * 1_000 if reading else 0.0,
        degraded=degraded,
    )


async def still_told(
    user_id: str, hits: Sequence[Hit], past: Past, records: MemoryRecords
) -> Sequence[Hit]:
    """The hits without those whose state of then was forgotten while the question was under way.

    Embedding and reranking take seconds. An id that is remembered anew looks to the index like one that
    was never forgotten.
    """
    states = {each.state.memory_id: each.state for each in past.states}

    async def is_told(hit: Hit) -> bool:
        state = states.get(hit.memory_id)
        if state is None or state.version != hit.version:
            return True
        now = await records.state_at(user_id, hit.memory_id, past.version)
        return now is not None and now.state.event_id == state.event_id

    return [hit for hit in hits if await is_told(hit)]


def _wanted(asked: SearchAsked, reading: Reading | None) -> Reading | None:
    """Who reads the best hits again, if anybody does. Raises Refused."""
    if asked.rerank and reading is None:
        raise Refused(
            "rerank: no reranker is set up here: set RERANKER_MODEL for the query consumer, to a "
            "cross-encoder's name on the hub or its folder, or ask without `rerank`."
        )
    return reading if asked.rerank is not False else None


def _looked_at(asked: SearchAsked, reading: Reading | None) -> int:
    """How many of the best are needed, so that those which are told can be chosen from them."""
    return max(asked.limit, reading.depth if reading else 0, POOL if asked.diversity else 0)


async def reread(
    asked: SearchAsked, ranking: Sequence[Placed], reading: Reading | None
) -> tuple[Sequence[Placed], str | None]:
    """The ranking as the reranker sees it; else as it was, and why.

    What was found is a whole answer: that it could not be put in a better order must not cost the asker
    all of it, but must be said.
    """
    if reading is None:
        return ranking, None
    texts = [worded(one.hit) for one in ranking[: reading.depth]]
    patience_s = (asked.deadline - datetime.now(UTC)).total_seconds() * SHARE_OF_PATIENCE
    try:
        async with asyncio.timeout(patience_s):
            given = await reading.by.scores(asked.text, texts)
    except (Unavailable, TimeoutError) as error:
        why = str(error) or f"it took more than {max(patience_s, 0):.1f} s"
        log.warning("not reranked", reason=why, question_id=str(asked.question_id))
        return ranking, f"not reranked: {why}"
    return reranked(ranking, given, explain=asked.explain), None


async def unlike(asked: SearchAsked, ranking: Sequence[Placed]) -> Sequence[Hit]:
    """What is told of the ranking."""
    if not asked.diversity:
        return [one.hit for one in ranking[: asked.limit]]
    # A long text's words take milliseconds.
    told = await asyncio.to_thread(diversified, ranking, asked.diversity, limit=asked.limit)
    return [one.hit for one in told]


async def understood(
    asked: SearchAsked, embedder: Embedder, classifier: Classifier, weights: Weights
) -> Question:
    """The question as the index is asked it. Its topics cost a model call: only where they count."""
    labels: Sequence[str] = ()
    if weights.topics and asked.mode == "hybrid":
        (classified,) = await asyncio.to_thread(classifier.classify, [asked.text])
        labels = classified.topics[:MOST_TOPICS]
    own, *topics = await embedder.embed([asked.text, *labels])
    return Question(
        own,
        question_terms(asked.text),
        np.stack([topic.text for topic in topics]) if topics else None,
    )


async def believed(
    asked: SearchAsked,
    embedder: Embedder,
    classifier: Classifier,
    records: MemoryRecords,
    weights: Weights,
) -> Past | None:
    """The moment that is asked about, and the states of then that the filter leaves.

    Raises Refused where more of them have changed than one question may cost.
    """
    if asked.as_of is None:
        return None
    version = version_at(asked.as_of)
    changed = await records.past(asked.user_id, version, limit=MOST_CHANGED + 1, among=MOST_WRITTEN)
    if changed is None or len(changed) > MOST_CHANGED:
        raise Refused(too_many_since(asked.as_of, changed))
    understood = await understood_anew([each.state for each in changed], classifier)
    where = searched(asked.user_id, asked.filter, datetime.now(UTC))
    left = await asyncio.to_thread(left_by, where, understood, changed)
    if len(left) > MOST_EMBEDDED:
        raise Refused(
            f"as_of: {len(left):,} of the memories that fit have changed since "
            f"{asked.as_of.isoformat()}, and {MOST_EMBEDDED} are looked at: narrow the filter (speaker, "
            "run_id, occurred_from, ...), or ask for a later moment."
        )
    return Past(version, await placed_anew(left, embedder, weights))


def left_by(
    where: Every, states: Sequence[MemoryClassified], changed: Sequence[Believed]
) -> Sequence[tuple[MemoryClassified, Believed]]:
    """The states of then that a filter leaves. Thousands, with much metadata, take a second."""
    return [
        (state, then)
        for state, then in zip(states, changed, strict=True)
        if leaves(where, past_payload(state, then.newest, then.told))
    ]


def too_many_since(moment: datetime, changed: Sequence[Believed] | None) -> str:
    """Why a moment is too long ago for this user."""
    what = (
        f"{MOST_WRITTEN:,} memories of this user were written"
        if changed is None
        else f"{MOST_CHANGED:,} memories of this user have changed"
    )
    return f"as_of: more than {what} since {moment.isoformat()}: ask for a later moment."


async def placed_anew(
    states: Sequence[tuple[MemoryClassified, Believed]], embedder: Embedder, weights: Weights
) -> Sequence[PastState]:
    """Past states, and where they lie, which nobody has kept."""
    topics = [state.topics if weights.topics else () for state, _ in states]
    texts = [worded(state) for state, _ in states]
    wanted = list(dict.fromkeys([*texts, *chain.from_iterable(topics)]))
    seen = dict(zip(wanted, await embedder.embed(wanted), strict=True)) if wanted else {}
    return [
        PastState(
            state, seen[text], then.newest, then.told, tuple(seen[each].text for each in labels)
        )
        for (state, then), text, labels in zip(states, texts, topics, strict=True)
    ]


async def understood_anew(
    states: Sequence[MemoryCaptured], classifier: Classifier
) -> Sequence[MemoryClassified]:
    """Past states, and what they are about: the audit trail keeps only what was said."""
    found = await asyncio.to_thread(classifier.classify, [state.text for state in states])
    return [
        state.becomes(MemoryClassified, asdict(classified))
        for state, classified in zip(states, found, strict=True)
    ]


async def closest(
    asked: SearchAsked,
    question: Question,
    vectors: MemoryVectors,
    _: Weights,
    __: Tiers | None,
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


async def weighed(
    asked: SearchAsked,
    question: Question,
    vectors: MemoryVectors,
    weights: Weights,
    tiers: Tiers | None,
    limit: int,
    past: Past | None,
) -> Sequence[Hit]:
    """What meaning and words have found, ranked by all that speaks for it."""
    found = await vectors.candidates(
        asked.user_id,
        question,
        filter=asked.filter,
        mode=asked.mode,
        depth=max(DEPTH, limit),
        past=past,
    )
    return ranked(
        found,
        Heard(words_of(asked.text), periods(asked.text, asked.asked_at), asked.asked_at),
        weights,
        tiers=tiers,
        limit=limit,
        min_score=asked.min_score,
        explain=asked.explain,
    )


def matching(question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
    """The hits, each with the words that it shares with the question."""
    return [
        hit.model_copy(
            update={"matched": shared_words(question, f"{hit.speaker or ''} {hit.text}")}
        )
        for hit in hits
    ]


async def known(
    asked: MemoryAsked, records: MemoryRecords, classifier: Classifier
) -> MemoryAnswered:
    """The newest state of one memory, or the one of then, or that it was forgotten."""
    memory = await records.get(asked.user_id, asked.memory_id)
    forgotten = memory is None and await records.is_forgotten(asked.user_id, asked.memory_id)
    if asked.as_of is not None and memory is not None:
        memory = await known_then(asked, memory, version_at(asked.as_of), records, classifier)
    return MemoryAnswered(question_id=asked.question_id, memory=memory, forgotten=forgotten)


async def known_then(
    asked: MemoryAsked,
    newest: KnownMemory,
    version: int,
    records: MemoryRecords,
    classifier: Classifier,
) -> KnownMemory | None:
    """The state that a memory had at `version`; None where there was none."""
    if newest.version <= version:
        return newest
    then = await records.state_at(asked.user_id, asked.memory_id, version)
    if then is None:
        return None
    (state,) = await understood_anew([then.state], classifier)
    said = state.model_dump(include=set(KnownMemory.model_fields))
    # Lives have no past.
    today = {"tier": newest.tier, "consolidated": newest.consolidated}
    return KnownMemory.model_validate(said | today)


async def receipts(
    asked: ReceiptsAsked, records: MemoryRecords, vectors: MemoryVectors
) -> ReceiptsAnswered:
    """How far both stores are with the events asked about."""
    in_record = await records.outcomes(asked.user_id, asked.events)
    in_index = await vectors.outcomes(asked.user_id, asked.events)
    return ReceiptsAnswered(
        question_id=asked.question_id,
        states=tuple(
            receipt_state(event.event_id, record, index)
            for event, record, index in zip(asked.events, in_record, in_index, strict=True)
        ),
    )


def receipt_state(event_id: UUID, record: Outcome | None, index: Outcome | None) -> ReceiptState:
    """How far both stores are with one event, and what became of it once both have done with it."""
    return ReceiptState(
        event_id=event_id,
        record=record is not None,
        index=index is not None,
        outcome=summed((record, index)) if record and index else None,
    )
