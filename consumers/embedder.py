"""memory.classified -> memory.enriched: place each memory among the others.

One model call for many texts costs little more than one for a single text. What was said just before and
after is mixed into a memory's vectors, and is seldom encoded anew: it was a memory itself a moment ago. So
was a memory that comes once more because its conversation went on.
Safe to repeat: the same text and model give the same vector.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.domain.lexical import lexical_vector
from pipeline.domain.wording import worded
from pipeline.models.seen import recalled, remember
from pipeline.ports import Cache, Embedder, Embedding, Floats, Halves
from pipeline.stage import Stage
from schemas.events import CLASSIFIED as CLASSIFIED_EVENTS
from schemas.events import Classified, Enriched, MemoryClassified, MemoryEnriched, Said, Vectors
from schemas.topics import CLASSIFIED, ENRICHED

BESIDE_WEIGHTS = (0.4, 0.2)
"""Of the nearest text said before or after, and of the one beyond that; the memory's own is 1."""
BESIDE_TOKEN_WEIGHTS = (0.85, 0.7)
"""The same for token vectors: a word said beside it matches, too, but less than one of the memory's own."""
MOST_TOKENS_BESIDE = 128
"""Of one text: an answer does not need all of a long question to be found by it."""
MOST_TOPICS = 32
"""Of one memory: more than a classifier gives, and few enough that nobody can keep the model busy with them."""
MAX_BATCH_BYTES = 256 * 1024
"""Some 700 usual memories, or five of the longest: seconds of the model's time, not minutes."""


def stage(embedder: Embedder, cache: Cache) -> Stage:
    """The embedder stage."""

    async def embed(events: Sequence[Classified]) -> Sequence[Enriched]:
        states = [event for event in events if isinstance(event, MemoryClassified)]
        new = {worded(state) for state in states if not state.context}
        wanted = {worded(said) for state in states for said in _heard(state)} - new
        wanted |= {topic for state in states for topic in state.topics[:MOST_TOPICS]}
        known = await recalled(cache, embedder, sorted(wanted))
        texts = sorted((new | wanted) - known.keys())
        seen = known | dict(zip(texts, await embedder.embed(texts), strict=True))
        fresh = (_reusable(states) | wanted) - known.keys()
        await remember(cache, embedder.model, {text: seen[text] for text in fresh})
        return await asyncio.to_thread(_all_enriched, events, embedder.model, seen)

    return Stage(
        name="embedder",
        reads=CLASSIFIED,
        writes=ENRICHED,
        decode=CLASSIFIED_EVENTS.validate_json,
        react=embed,
        max_bytes=MAX_BATCH_BYTES,
    )


def _all_enriched(
    events: Sequence[Classified], model: str, seen: Mapping[str, Embedding]
) -> Sequence[Enriched]:
    return [
        _enriched(event, model, seen) if isinstance(event, MemoryClassified) else event
        for event in events
    ]


def _reusable(states: Sequence[MemoryClassified]) -> set[str]:
    """Texts of conversations: each precedes the next one."""
    return {worded(state) for state in states if state.run_id is not None}


def _heard(state: MemoryClassified) -> Iterator[MemoryClassified | Said]:
    """What is likely to be known: what was said beside a memory, and a memory that comes once more."""
    if state.context:
        yield state
    yield from state.preceding
    yield from state.following


def _enriched(state: MemoryClassified, model: str, seen: Mapping[str, Embedding]) -> MemoryEnriched:
    own = seen[worded(state)]
    sides = [
        [seen[worded(said)] for said in side]
        for side in (tuple(reversed(state.preceding)), state.following)
    ]
    texts = [[each.text for each in side] for side in sides]
    tokens = [[each.tokens for each in side] for side in sides]
    topics = [seen[topic].text for topic in state.topics[:MOST_TOPICS]]
    return state.becomes(
        MemoryEnriched,
        {
            "model": model,
            "text_vector": packed(mixed(own.text, texts)[np.newaxis, :]),
            "token_vectors": packed(joined(own.tokens, tokens)),
            "topic_vectors": packed(
                np.array(topics, np.float32).reshape(len(topics), len(own.text))
            ),
            "lexical_vector": lexical_vector(state),
        },
    )


def mixed(own: Floats, sides: Sequence[Sequence[Floats]]) -> Floats:
    """The memory's vector with those of what was said before and after mixed in, the nearest first; normalised."""
    vector = own.copy()
    for side in sides:
        for other, weight in zip(side, BESIDE_WEIGHTS, strict=False):
            vector += weight * other
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def joined(own: Halves, sides: Sequence[Sequence[Halves]]) -> Halves:
    """The memory's token vectors, and shorter ones of what was said before and after, the nearest first."""
    shorter = [
        (weight * other[:MOST_TOKENS_BESIDE]).astype(np.float16)
        for side in sides
        for other, weight in zip(side, BESIDE_TOKEN_WEIGHTS, strict=False)
    ]
    return np.concatenate([own, *shorter])


def packed(matrix: Floats | Halves) -> Vectors:
    """A float32 or float16 matrix as it travels: rows one after the other, little endian."""
    rows, columns = matrix.shape
    dtype = "float16" if matrix.dtype == np.float16 else "float32"
    little = matrix.astype("<f2" if dtype == "float16" else "<f4", copy=False)
    return Vectors(dtype=dtype, shape=(rows, columns), data=little.tobytes())
