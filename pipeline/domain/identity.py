"""Who a memory is, on every topic and in every store.

A memory id is only unique within its user, so the key is made of both. Each part is prefixed with its
length: two different pairs can never spell the same key.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID, uuid5

from schemas.events import MemoryState, Said

_MEMORIES = UUID("8f0ddc6c-2b0f-5f2b-9a55-6a0f5f3e7c11")
_USERS = UUID("3f7e9a52-0d5c-5a7b-8a4e-d1c7a9be2f07")
_GENERATIONS = UUID("b7d0a6a5-53c9-5b0e-8c39-0d8e3a2c9f14")
_EVENTS = UUID("c2b6c6de-97b7-5d0a-b1d4-40f1b7a2d9e3")
_EVENTS_OF_A_MEMORY = UUID("5a1f0c3e-7d42-5b86-9e0b-2f6c84d1a7e9")
_SAID = {"text", "occurred_at", "speaker", "agent_id", "app_id", "run_id", "metadata"}


def memory_key(user_id: str, memory_id: str) -> UUID:
    """The Kafka key of a memory's events, its point id in Qdrant, its row's key in Postgres."""
    return uuid5(_MEMORIES, f"{len(user_id)}:{user_id}{memory_id}")


def user_key(user_id: str) -> UUID:
    """The Kafka key of a user's forgetting, and the point that tells Qdrant of it."""
    return uuid5(_USERS, user_id)


def generation_key(user_id: str) -> UUID:
    """The point in which Qdrant keeps a user's generation."""
    return uuid5(_GENERATIONS, user_id)


def event_id_of(user_id: str, idempotency_key: str, memory_id: str | None = None) -> UUID:
    """The same id for the same key of the same user: publishing twice is publishing once.

    Where the publisher names the memory, its id counts too: one key for two memories is two events.
    """
    if memory_id is None:
        return uuid5(_EVENTS, f"{len(user_id)}:{user_id}{idempotency_key}")
    named = f"{len(user_id)}:{user_id}{len(memory_id)}:{memory_id}{idempotency_key}"
    return uuid5(_EVENTS_OF_A_MEMORY, named)


def tombstone_id(forgetting: UUID, key: UUID) -> UUID:
    """The id of the event that tells of one memory, by its key, that went with its user.

    The same each time; and not that of the user's forgetting, whose receipt hears of nothing else.
    """
    return uuid5(forgetting, str(key))


def context_hash(preceding: Sequence[Said], following: Sequence[Said]) -> str:
    """What a memory is understood by beside itself: equal where its vectors would be equal."""
    told = [[said.model_dump_json() for said in side] for side in (preceding, following)]
    return sha256(json.dumps(told).encode()).hexdigest()[:32]


def content_hash(state: MemoryState) -> str:
    """What the two stores compare: 32 hexadecimal digits over all that the publisher said."""
    said = state.model_dump_json(include=_SAID)
    canonical = json.dumps(json.loads(said), sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()[:32]
