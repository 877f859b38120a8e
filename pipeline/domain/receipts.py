"""How the world learns that an event is stored: one notice from each store."""

from typing import Any, Literal

from pipeline.domain.versions import Outcome
from schemas.events import Enriched, MemoryStored, Stored, UserErased, UserForgotten

Store = Literal["record", "index"]
STORES: tuple[Store, ...] = ("record", "index")


def done(change: Enriched, store: Store, outcome: Outcome) -> Stored:
    """The notice that `store` has done with `change`."""
    told: dict[str, Any] = {
        "event_id": change.event_id,
        "user_id": change.user_id,
        "version": change.version,
        "published_at": change.published_at,
        "hops": change.hops,
        "store": store,
    }
    if isinstance(change, UserForgotten):
        return UserErased(**told, partition=change.partition, partitions=change.partitions)
    return MemoryStored(**told, memory_id=change.memory_id, outcome=outcome)
