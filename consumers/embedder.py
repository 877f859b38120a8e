"""memory.classified -> memory.enriched: place each memory among the others.

One model call for many texts costs little more than one for a single text. What was said just before is
mixed into a memory's vector, and is seldom encoded anew: it was a memory itself a moment ago.
Safe to repeat: the same text and model give the same vector.
"""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np

from pipeline.domain.lexical import lexical_vector
from pipeline.domain.wording import worded
from pipeline.ports import Cache, Embedder, Embedding, Floats, Halves
from pipeline.stage import Stage
from schemas.events import CLASSIFIED as CLASSIFIED_EVENTS
from schemas.events import Classified, Enriched, MemoryClassified, MemoryEnriched, Said, Vectors
from schemas.topics import CLASSIFIED, ENRICHED

PRECEDING_WEIGHTS = (0.4, 0.2)
"""Of the nearest text said before, and of the one before that; the memory's own is 1."""
CACHE_TTL_S = 24 * 3_600
MAX_BATCH_BYTES = 256 * 1024
"""Some 700 usual memories, or five of the longest: seconds of the model's time, not minutes."""


def stage(embedder: Embedder, cache: Cache) -> Stage:
    """The embedder stage."""

    async def embed(events: Sequence[Classified]) -> Sequence[Enriched]:
        states = [event for event in events if isinstance(event, MemoryClassified)]
        own = {worded(state) for state in states}
        before = {worded(said) for state in states for said in state.preceding} - own
        labels = {topic for state in states for topic in state.topics}
        known = await _recall(cache, embedder, sorted(before | labels))
        texts = sorted(own | ((before | labels) - known.keys()))
        embedded = dict(zip(texts, await embedder.embed(texts), strict=True))
        dense = known | {text: embedding.text for text, embedding in embedded.items()}
        await _remember(cache, embedder.model, dense, _reusable(states) | labels | before, known)
        return await asyncio.to_thread(_all_enriched, events, embedder.model, embedded, dense)

    return Stage(
        name="embedder",
        reads=CLASSIFIED,
        writes=ENRICHED,
        decode=CLASSIFIED_EVENTS.validate_json,
        react=embed,
        max_bytes=MAX_BATCH_BYTES,
    )


def _all_enriched(
    events: Sequence[Classified],
    model: str,
    embedded: Mapping[str, Embedding],
    dense: Mapping[str, Floats],
) -> Sequence[Enriched]:
    return [
        _enriched(event, model, embedded[worded(event)], dense)
        if isinstance(event, MemoryClassified)
        else event
        for event in events
    ]


def _reusable(states: Sequence[MemoryClassified]) -> set[str]:
    """Texts of conversations: each precedes the next one."""
    return {worded(state) for state in states if state.run_id is not None}


def _enriched(
    state: MemoryClassified, model: str, own: Embedding, dense: Mapping[str, Floats]
) -> MemoryEnriched:
    width = own.text.shape[0]
    topics = [dense[topic] for topic in state.topics]
    return state.becomes(
        MemoryEnriched,
        {
            "model": model,
            "text_vector": packed(mixed(own.text, state.preceding, dense)[np.newaxis, :]),
            "token_vectors": packed(own.tokens),
            "topic_vectors": packed(np.array(topics, np.float32).reshape(len(topics), width)),
            "lexical_vector": lexical_vector(state),
        },
    )


def mixed(own: Floats, preceding: Sequence[Said], dense: Mapping[str, Floats]) -> Floats:
    """The memory's vector with those of what was said before mixed in, normalised."""
    vector = own.copy()
    for said, weight in zip(reversed(preceding), PRECEDING_WEIGHTS, strict=False):
        vector += weight * dense[worded(said)]
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def packed(matrix: Floats | Halves) -> Vectors:
    """A float32 or float16 matrix as it travels: rows one after the other, little endian."""
    rows, columns = matrix.shape
    dtype = "float16" if matrix.dtype == np.float16 else "float32"
    little = matrix.astype("<f2" if dtype == "float16" else "<f4", copy=False)
    return Vectors(dtype=dtype, shape=(rows, columns), data=little.tobytes())


async def _recall(cache: Cache, embedder: Embedder, texts: Sequence[str]) -> dict[str, Floats]:
    found = await cache.get_many([_key(embedder.model, text) for text in texts])
    return {
        text: np.frombuffer(value, np.float32)
        for text, value in zip(texts, found, strict=True)
        # Whatever else stands there is not ours.
        if value is not None and len(value) == 4 * embedder.dimensions
    }


async def _remember(
    cache: Cache,
    model: str,
    dense: Mapping[str, Floats],
    texts: set[str],
    known: Mapping[str, Floats],
) -> None:
    fresh = texts - known.keys()
    entries = {_key(model, text): dense[text].tobytes() for text in fresh}
    if entries:
        await cache.put_many(entries, ttl_s=CACHE_TTL_S)


def _key(model: str, text: str) -> str:
    """Names a text's vector without telling the text."""
    return f"vector:{model}:{sha256(text.encode()).hexdigest()}"
