"""memory.search.asked -> the asker's reply topic: answer what is asked about one user's memories.

Thin: the index finds, the ranking weighs, the record knows. An unknown user has no memories, which is an answer.
Safe to repeat: asking changes nothing.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from pipeline.domain.lexical import question_terms, shared_words
from pipeline.domain.ranking import DEPTH, Heard, ranked, words_of
from pipeline.domain.receipts import summed
from pipeline.domain.times import periods
from pipeline.domain.weights import Weights
from pipeline.errors import Refused
from pipeline.ports import (
    Embedder,
    Embedding,
    MemoryRecords,
    MemoryVectors,
    Question,
)
from pipeline.stage import Desk
from schemas.events import Outcome
from schemas.search import (
    Answered,
    Asked,
    Hit,
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
from schemas.topics import ASKED, OPERATOR_ASKED


def stage(
    embedder: Embedder, records: MemoryRecords, vectors: MemoryVectors, weights: Weights
) -> Desk:
    """The query desk."""
    # The first question that names a time would wait for most of a second while this is imported.
    periods("on 8 May 2023", datetime.now(UTC))

    async def answer(asked: Asked) -> Answered:
        match asked:
            case SearchAsked():
                return await search(asked, embedder, vectors, weights)
            case ReceiptsAsked():
                return await receipts(asked, records, vectors)
            case MemoryAsked():
                return await known(asked, records)
            case NewestAsked():
                newest = await records.newest(asked.user_id)
                return NewestAnswered(question_id=asked.question_id, version=newest)
            case _:
                raise Refused(
                    f"{asked.type} is an operator's question: it is asked on the topic "
                    f"{OPERATOR_ASKED.name}, below the same prefix."
                )

    return Desk(name="query", reads=ASKED, answer=answer)


async def search(
    asked: SearchAsked, embedder: Embedder, vectors: MemoryVectors, weights: Weights
) -> SearchAnswered:
    """The memories of the asker's user that answer the question best."""
    began = time.perf_counter()
    (embedding,) = await embedder.embed([asked.text])
    embedded = time.perf_counter()
    if asked.mode == "dense":
        hits = await vectors.search(
            asked.user_id,
            embedding,
            filter=asked.filter,
            limit=asked.limit,
            min_score=asked.min_score,
        )
    else:
        hits = await weighed(asked, embedding, vectors, weights)
    return SearchAnswered(
        question_id=asked.question_id,
        hits=tuple(hits),
        embed_ms=(embedded - began) * 1_000,
        search_ms=(time.perf_counter() - embedded) * 1_000,
    )


async def weighed(
    asked: SearchAsked, embedding: Embedding, vectors: MemoryVectors, weights: Weights
) -> Sequence[Hit]:
    """What meaning and words have found, ranked by all that speaks for it."""
    found = await vectors.candidates(
        asked.user_id,
        Question(embedding, question_terms(asked.text)),
        filter=asked.filter,
        mode=asked.mode,
        depth=max(DEPTH, asked.limit),
    )
    hits = ranked(
        found,
        Heard(words_of(asked.text), periods(asked.text, asked.asked_at), asked.asked_at),
        weights,
        limit=asked.limit,
        min_score=asked.min_score,
        explain=asked.explain,
    )
    return [matching(asked, hit) for hit in hits] if asked.explain else hits


def matching(asked: SearchAsked, hit: Hit) -> Hit:
    """The hit with the words that it shares with the question."""
    said = f"{hit.speaker or ''} {hit.text}"
    return hit.model_copy(update={"matched": shared_words(asked.text, said)})


async def known(asked: MemoryAsked, records: MemoryRecords) -> MemoryAnswered:
    """The newest state of one memory, or that it was forgotten."""
    memory = await records.get(asked.user_id, asked.memory_id)
    forgotten = memory is None and await records.is_forgotten(asked.user_id, asked.memory_id)
    return MemoryAnswered(question_id=asked.question_id, memory=memory, forgotten=forgotten)


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
