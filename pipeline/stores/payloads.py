"""Events in, points out; and what a point's payload says, for who reads it again. All of it pure."""

from datetime import datetime
from uuid import UUID

from pipeline.domain.identity import content_hash, generation_key, memory_key, user_key
from pipeline.domain.versions import Known, Stamp
from pipeline.ports import Fingerprint
from pipeline.stores.fitting import fitting_vectors
from pipeline.stores.metadata_words import metadata_numbers, metadata_terms
from pipeline.stores.points import (
    FORGOTTEN,
    GENERATION,
    MEMORY,
    USER_FORGOTTEN,
    IndexShape,
    Payload,
    Point,
)
from pipeline.stores.states import Erased, State, Watermark, known_of
from schemas.events import MemoryEnriched, MemoryState, UnderstoodState, UserForgotten

_OLDEST = -(2**53)


def memory_point(event: MemoryEnriched, shape: IndexShape) -> Point:
    """The point of a memory. Raises Unusable where its vectors do not fit the index."""
    told = {
        "content_hash": content_hash(event),
        "model": event.model,
        "context": event.context,
    }
    payload = _state(event) | understood_payload(event) | told
    key = memory_key(event.user_id, event.memory_id)
    return Point(key, payload, fitting_vectors(event, shape))


UNDERSTOOD_FIELDS = ("domain", "topics", "importance")
"""What a classifier says of a memory."""


def understood_payload(event: UnderstoodState) -> Payload:
    """What a memory is found and told by, beside its vectors."""
    return said_payload(event) | {
        "domain": event.domain,
        "topics": list(event.topics),
        "importance": event.importance,
    }


def said_payload(event: MemoryState) -> Payload:
    """The part of it that needs no classifier."""
    said = {
        "speaker": event.speaker,
        "agent_id": event.agent_id,
        "app_id": event.app_id,
        "run_id": event.run_id,
    }
    return {
        "kind": MEMORY,
        "user_id": event.user_id,
        "memory_id": event.memory_id,
        "version": event.version,
        "text": event.text,
        "occurred_at": event.occurred_at.isoformat(timespec="microseconds"),
        "metadata": event.metadata,
        "metadata_terms": metadata_terms(event.metadata),
        "metadata_numbers": metadata_numbers(event.metadata),
        **{name: value for name, value in said.items() if value is not None},
    }


def point(state: State, shape: IndexShape) -> Point:
    """The point of any state. Raises Unusable where vectors do not fit the index."""
    if isinstance(state, MemoryEnriched):
        return memory_point(state, shape)
    key = memory_key(state.user_id, state.memory_id)
    return Point(key, _state(state) | {"kind": FORGOTTEN}, None)


def _state(state: State) -> Payload:
    known = known_of(state)
    event = state.by if isinstance(state, Erased) else state
    return {
        "user_id": state.user_id,
        "memory_id": state.memory_id,
        "event_id": str(event.event_id),
        "precedence": known.stamp.precedence,
        "tie": known.stamp.tie,
        "version": known.stamp.version,
        "published_at": event.published_at.isoformat(timespec="microseconds"),
    }


def watermark_point(forgetting: UserForgotten) -> Point:
    """The point that tells of a user's forgetting."""
    return Point(
        user_key(forgetting.user_id),
        {
            "kind": USER_FORGOTTEN,
            "user_id": forgetting.user_id,
            "event_id": str(forgetting.event_id),
            "precedence": forgetting.version,
            "tie": 0,
            "version": forgetting.version,
            "published_at": forgetting.published_at.isoformat(timespec="microseconds"),
        },
        None,
    )


def generation_point(user_id: str, fresh: UUID) -> Point:
    """The point that keeps a user's generation. It does not say whose it is, nothing finds it by that."""
    # The same place in the order for all of them: the guard of a write lets each replace each.
    payload = {"kind": GENERATION, "event_id": str(fresh), "precedence": 0, "tie": 0}
    return Point(generation_key(user_id), payload, None)


def generation(payload: Payload) -> UUID:
    """What such a point keeps."""
    return UUID(payload["event_id"])


def held(payload: Payload) -> Known:
    """What a point of a memory says of it."""
    # What was altered by hand may lack a number: then anything of ours is newer.
    stamp = Stamp(payload.get("precedence", _OLDEST), payload.get("tie", 0))
    return Known(stamp, payload["kind"] != MEMORY, payload.get("context", 0))


def watermark(payload: Payload) -> Watermark:
    """What the point of a user's forgetting says."""
    return Watermark(
        payload["version"],
        UUID(payload["event_id"]),
        datetime.fromisoformat(payload["published_at"]),
    )


def fingerprint(id: UUID, payload: Payload) -> Fingerprint:
    """What `verify` compares."""
    told = payload.get("content_hash", "")
    life = payload.get("life", 0) if payload["kind"] == MEMORY else 0
    return Fingerprint(id, held(payload), told, payload["kind"] == USER_FORGOTTEN, life)
