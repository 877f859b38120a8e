"""Events with sensible defaults, so that a test shows only what it is about."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.domain.clock import VersionClock, moment_of
from pipeline.ports import Embedding, Fingerprint, Fingerprints
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.caches import Caches, HotCache
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import IndexShape
from pipeline.stores.points_in_memory import PointsInMemory
from schemas.events import (
    MemoryArchived,
    MemoryCaptured,
    MemoryConsolidated,
    MemoryEnriched,
    MemoryForgotten,
    MemoryRecalled,
    MemoryRestored,
    MemoryTiered,
    SparseVector,
    UserForgotten,
    Vectors,
)
from schemas.search import EventRef

MODEL = "toy"
DIMENSIONS = 8
"""Of the vectors of `enriched` and `question`."""

_clock = VersionClock()


def captured(text: str = "I love spicy Thai food", **fields: Any) -> MemoryCaptured:
    """A captured memory of alice."""
    fields = _memory(fields)
    defaults: dict[str, Any] = {"text": text, "occurred_at": fields["published_at"]}
    return MemoryCaptured(**(defaults | fields))


def enriched(
    text: str = "I love spicy Thai food",
    *,
    vector: ArrayLike | None = None,
    tokens: ArrayLike | None = None,
    topic_rows: ArrayLike | None = None,
    **fields: Any,
) -> MemoryEnriched:
    """An enriched memory of alice; the same text gives the same vectors."""
    fields = _memory(fields)
    defaults: dict[str, Any] = {
        "text": text,
        "occurred_at": fields["published_at"],
        "domain": "other",
        "topics": ("food",),
        "model": MODEL,
        "text_vector": vectors(np.atleast_2d(direction(text) if vector is None else vector)),
        "token_vectors": vectors(
            [direction(f"{text} {i}", 64) for i in range(3)] if tokens is None else tokens,
            "float16",
        ),
        "topic_vectors": vectors([direction("food")] if topic_rows is None else topic_rows),
        "lexical_vector": SparseVector(indices=(7, 40_000), values=(0.5, 1.25)),
    }
    return MemoryEnriched(**(defaults | fields))


def forgotten(memory_id: str, **fields: Any) -> MemoryForgotten:
    """One of alice's memories was forgotten."""
    return MemoryForgotten(**_memory({"memory_id": memory_id} | fields))


def user_forgotten(user_id: str = "alice", **fields: Any) -> UserForgotten:
    """Everything of a user was forgotten; the copy of the only partition."""
    defaults: dict[str, Any] = {"user_id": user_id, "partition": 0, "partitions": 1}
    return UserForgotten(**_event(defaults | fields))


def recalled(memory_id: str, *, at: datetime, **fields: Any) -> MemoryRecalled:
    """An answer told of one of alice's memories."""
    return MemoryRecalled(
        **_memory({"memory_id": memory_id, "published_at": at, "at": at} | fields)
    )


def archived(memory_id: str, **fields: Any) -> MemoryArchived:
    """One of alice's memories was put away."""
    defaults = {"memory_id": memory_id, "reason": "pruned", "batch": "b"}
    return MemoryArchived(**_memory(defaults | fields))


def restored(memory_id: str, **fields: Any) -> MemoryRestored:
    """One of alice's memories was brought back."""
    return MemoryRestored(**_memory({"memory_id": memory_id} | fields))


def consolidated(memory_id: str, *merged: str, **fields: Any) -> MemoryConsolidated:
    """One of alice's memories stands for others."""
    return MemoryConsolidated(**_memory({"memory_id": memory_id, "merged": merged} | fields))


def tiered(memory_id: str, **fields: Any) -> MemoryTiered:
    """Where one of alice's memories stands."""
    defaults = {"memory_id": memory_id, "tier": "short", "strength": 0.5, "reason": "recalled"}
    return MemoryTiered(type="MemoryTiered", **_memory(defaults | fields))


def question(text: str = "I love spicy Thai food", *, vector: ArrayLike | None = None) -> Embedding:
    """What the embedder makes of a question; the same text as a memory's lies where the memory lies."""
    place = direction(text) if vector is None else np.asarray(vector, np.float32)
    return Embedding(place, np.zeros((0, 64), np.float16))


def named(event: MemoryEnriched | MemoryForgotten | UserForgotten) -> EventRef:
    """The name of an event, as a receipt carries it."""
    memory_id = None if isinstance(event, UserForgotten) else event.memory_id
    return EventRef(
        event_id=event.event_id,
        memory_id=memory_id,
        version=event.version,
        if_absent=isinstance(event, MemoryEnriched) and event.if_absent,
    )


def vectors_in_memory(model: str = MODEL, dimensions: int = DIMENSIONS) -> VectorIndex:
    """An index over a dict, empty."""
    return VectorIndex(PointsInMemory(), IndexShape(model, dimensions))


def caches() -> Caches:
    """What a desk keeps, in memory alone."""
    return Caches(HotCache(1_000_000), CacheInMemory(), shares_answers=True)


def vectors(rows: ArrayLike, dtype: Any = "float32") -> Vectors:
    """A matrix as it travels."""
    matrix = np.asarray(rows, dtype)
    shape = (matrix.shape[0], matrix.shape[1]) if matrix.size else (0, 0)
    return Vectors(dtype=dtype, shape=shape, data=matrix.tobytes())


def direction(seed: str, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """A unit vector of its own for each `seed`."""
    row = np.random.default_rng(list(seed.encode())).normal(size=dimensions)
    return (row / np.linalg.norm(row)).astype(np.float32)


def _memory(fields: dict[str, Any]) -> dict[str, Any]:
    return _event({"memory_id": str(uuid4())} | fields)


def _event(fields: dict[str, Any]) -> dict[str, Any]:
    version = fields.get("version") or _clock.next()
    defaults: dict[str, Any] = {
        "event_id": uuid4(),
        "user_id": "alice",
        "version": version,
        "published_at": moment_of(version),
    }
    return defaults | fields


async def fingerprints(store: Fingerprints) -> Sequence[Fingerprint]:
    """Those of all memories of a store, forgotten ones too, in the order of their keys."""
    told: list[Fingerprint] = []
    while page := await store.page(told[-1].key if told else None, 1_000):
        told += page
    return [each for each in told if not each.watermark]
