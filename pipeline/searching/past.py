"""What was believed at a moment: the states of then of all that has changed since.

    audit trail  -> what changed since, as it was then  -> what the filter leaves, embedded anew

The index has only what is believed now: so what did not change since is found there, and the rest is placed
beside it. What is looked up, what is read and what is embedded have a limit each, and a question beyond it
is refused. The classifier reads only what the rest of the filter leaves.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain

from pipeline.aside import in_slices
from pipeline.domain.clock import version_at
from pipeline.domain.weights import Weights
from pipeline.domain.wording import worded
from pipeline.errors import Refused
from pipeline.ports import (
    Believed,
    Classifier,
    Embedder,
    Embedding,
    MemoryRecords,
    Past,
    PastState,
    TooMuch,
)
from pipeline.stores.conditions import Condition, Every, without
from pipeline.stores.past import chars_of, past_payload
from pipeline.stores.payloads import UNDERSTOOD_FIELDS
from pipeline.stores.scope import leaves, searched
from schemas.events import MemoryCaptured, MemoryClassified
from schemas.search import Hit, MemoryAsked, Mode, RecordedMemory, SearchAsked

MOST_WRITTEN = 100_000
"""Memories newer than a moment in the past, looked up in the audit trail: nearly a second of the record's."""
MOST_CHANGED = 2_000
"""Of those, memories that there were then, looked through for what a filter leaves."""
MOST_BYTES = 4_000_000
"""Of their texts and metadata: some seconds of the classifier's, where the filter asks what it says."""
MOST_EMBEDDED = 256
"""Of those, embedded to answer one question: a second or two, and then they are kept for the next."""
MOST_EMBEDDED_CHARS = 1_000_000
"""Of their texts and metadata."""

Understood = tuple[MemoryClassified, Believed]


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
    changed = await records.past(
        asked.user_id,
        version,
        limit=MOST_CHANGED + 1,
        among=MOST_WRITTEN,
        most_bytes=MOST_BYTES,
    )
    if isinstance(changed, str) or len(changed) > MOST_CHANGED:
        raise Refused(too_much_since(asked.as_of, changed))
    where = searched(asked.user_id, asked.filter, datetime.now(UTC))
    left = await left_by(where, changed, classifier, asked.as_of)
    return Past(version, await placed_anew(left, asked.mode, embedder, weights))


async def left_by(
    where: Every, changed: Sequence[Believed], classifier: Classifier, moment: datetime
) -> Sequence[Understood]:
    """The states of then that a filter leaves. Raises Refused where they are too many to embed.

    What the filter does not ask of what they are about is asked first: the rest costs a hundred times more.
    """
    said = without(where, UNDERSTOOD_FIELDS)
    left = await in_slices(lambda some: _meeting(said, some), changed, _chars_of)
    if said == where:
        _check_embeddable(left, moment)
    understood = await understood_anew([each.state for each in left], classifier)
    both = list(zip(understood, left, strict=True))
    if said != where:
        both = await in_slices(
            lambda some: _meeting_too(where, some), both, lambda one: _chars_of(one[1])
        )
        _check_embeddable([then for _, then in both], moment)
    return both


def _meeting(where: Condition, changed: Sequence[Believed]) -> Sequence[Believed]:
    return [
        each for each in changed if leaves(where, past_payload(each.state, each.newest, each.told))
    ]


def _meeting_too(where: Condition, both: Sequence[Understood]) -> Sequence[Understood]:
    return [
        (state, then)
        for state, then in both
        if leaves(where, past_payload(state, then.newest, then.told))
    ]


def _chars_of(each: Believed) -> int:
    return chars_of(each.state)


def _check_embeddable(left: Sequence[Believed], moment: datetime) -> None:
    since = f"of the memories that fit have changed since {moment.isoformat()}"
    todo = "narrow the filter (speaker, run_id, occurred_from, ...), or ask for a later moment."
    if len(left) > MOST_EMBEDDED:
        raise Refused(f"as_of: {len(left):,} {since}, and {MOST_EMBEDDED} are looked at: {todo}")
    chars = sum(map(_chars_of, left))
    if chars > MOST_EMBEDDED_CHARS:
        raise Refused(
            f"as_of: {len(left):,} {since}, with {chars:,} characters, and "
            f"{MOST_EMBEDDED_CHARS:,} are looked at: {todo}"
        )


def too_much_since(moment: datetime, changed: Sequence[Believed] | TooMuch) -> str:
    """Why a moment is too long ago for this user."""
    match changed:
        case "written":
            what = f"{MOST_WRITTEN:,} memories of this user were written"
        case "said":
            what = f"{MOST_BYTES:,} bytes of this user's memories have changed"
        case _:
            what = f"{MOST_CHANGED:,} memories of this user have changed"
    return f"as_of: more than {what} since {moment.isoformat()}: ask for a later moment."


async def placed_anew(
    states: Sequence[Understood], mode: Mode, embedder: Embedder, weights: Weights
) -> Sequence[PastState]:
    """Past states, and where they lie, which nobody has kept. By words alone that is not asked."""
    if mode == "lexical":
        nowhere = Embedding.nowhere(embedder.dimensions)
        return [PastState(state, nowhere, then.newest, then.told) for state, then in states]
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

    def understood(some: Sequence[MemoryCaptured]) -> Sequence[MemoryClassified]:
        found = classifier.classify([state.text for state in some])
        return [
            state.becomes(MemoryClassified, asdict(classified))
            for state, classified in zip(some, found, strict=True)
        ]

    return await in_slices(understood, states, lambda state: len(state.text))


async def known_then(
    asked: MemoryAsked,
    newest: RecordedMemory,
    version: int,
    records: MemoryRecords,
    classifier: Classifier,
) -> RecordedMemory | None:
    """The state that a memory had at `version`; None where there was none."""
    if newest.version <= version:
        return newest
    then = await records.state_at(asked.user_id, asked.memory_id, version)
    if then is None:
        return None
    (state,) = await understood_anew([then.state], classifier)
    said = state.model_dump(include=set(RecordedMemory.model_fields))
    # Lives have no past.
    today = newest.model_dump(include={"tier", "consolidated", "into"})
    return RecordedMemory.model_validate(said | today)


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
