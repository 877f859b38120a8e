"""memory.search.asked -> the asker's reply topic, memory.recalled: answer what is asked about one user's memories.

Thin: the index finds, the ranking weighs, a cross-encoder reads the best again where one is set up, the
record knows. An unknown user has no memories, which is an answer.
What was asked before is answered as it was, where nothing of its user has changed since.
What an answer tells first counts as recalled, so that it may rise; that is told once the answer has left.
Safe to repeat: asking changes nothing, and one question asked twice is one recall.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid5

from pipeline.domain.clock import version_at
from pipeline.domain.receipts import summed
from pipeline.domain.tiers import Tiers
from pipeline.domain.times import periods
from pipeline.domain.weights import Weights
from pipeline.errors import Refused
from pipeline.models.seen import Remembering
from pipeline.ports import Classifier, Embedder, MemoryRecords, MemoryVectors
from pipeline.searching.past import known_then
from pipeline.searching.search import Rereading, SearchPorts, search
from pipeline.stage import Desk
from pipeline.stores.answers import KeptAnswers
from pipeline.stores.caches import Caches
from schemas.events import MemoryRecalled, Outcome
from schemas.search import (
    Answered,
    Asked,
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

CLOCKS_DIFFER_BY = timedelta(days=1)
"""A question that says it was asked longer ago, or so much later, counts no use."""
_OF_THE_ENVELOPE = {"question_id", "asked_at", "deadline", "reply_to", "recall"}
"""What differs between two askings of one question, and what changes nothing in its answer."""


def stage(
    embedder: Embedder,
    classifier: Classifier,
    records: MemoryRecords,
    vectors: MemoryVectors,
    weights: Weights,
    rereading: Rereading | None = None,
    caches: Caches | None = None,
    tiers: Tiers | None = None,
) -> Desk:
    """The query desk."""
    answers = None
    if caches is not None:
        embedder = Remembering(embedder, caches.vectors)
        answers = KeptAnswers.of(caches, vectors)
    ports = SearchPorts(embedder, classifier, records, vectors, weights, rereading, tiers)
    # The first question that names a time would wait for most of a second while this is imported.
    periods("on 8 May 2023", datetime.now(UTC))

    async def answer(asked: Asked) -> Answered:
        match asked:
            case SearchAsked():
                return await as_before(asked, answers, weights, partial(search, ports=ports))
            case ReceiptsAsked():
                return await receipts(asked, records, vectors)
            case MemoryAsked():
                return await known(asked, records, classifier)
            case NewestAsked():
                return await newest(asked, records)
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


async def known(
    asked: MemoryAsked, records: MemoryRecords, classifier: Classifier
) -> MemoryAnswered:
    """The newest state of one memory, or the one of then, or that it was forgotten."""
    memory = await records.get(asked.user_id, asked.memory_id)
    forgotten = memory is None and await records.is_forgotten(asked.user_id, asked.memory_id)
    if memory is None:
        until = await records.forgotten_until(asked.user_id, asked.memory_id)
        return MemoryAnswered(
            question_id=asked.question_id, forgotten=forgotten, forgotten_until=until
        )
    if asked.as_of is not None:
        memory = await known_then(asked, memory, version_at(asked.as_of), records, classifier)
    return MemoryAnswered(question_id=asked.question_id, memory=memory)


async def newest(asked: NewestAsked, records: MemoryRecords) -> NewestAnswered:
    """How new the newest state of a user is, and how many memories there are."""
    return NewestAnswered(
        question_id=asked.question_id,
        version=await records.newest(asked.user_id),
        memories=await records.count(asked.user_id),
    )


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
