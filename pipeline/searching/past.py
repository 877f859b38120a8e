"""What was believed at a moment: the states of then of all that has changed since.

    audit trail  -> what changed since, as it was then  -> what the filter leaves, embedded anew

The index has only what is believed now: so what did not change since is found there, and the rest is placed
beside it. Both what is looked up and what is embedded have a limit, and a question beyond it is refused.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain

from pipeline.domain.clock import version_at
from pipeline.domain.weights import Weights
from pipeline.domain.wording import worded
from pipeline.errors import Refused
from pipeline.ports import Believed, Classifier, Embedder, MemoryRecords, Past, PastState
from pipeline.stores.conditions import Every
from pipeline.stores.past import past_payload
from pipeline.stores.points import leaves, searched
from schemas.events import MemoryCaptured, MemoryClassified
from schemas.search import Hit, KnownMemory, MemoryAsked, SearchAsked

MOST_WRITTEN = 100_000
"""Memories newer than a moment in the past, looked up in the audit trail: nearly a second of the record's."""
MOST_CHANGED = 2_000
"""Of those, memories that there were then, looked through for what a filter leaves."""
MOST_EMBEDDED = 256
"""Of those, embedded to answer one question: a second or two, and then they are kept for the next."""


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
