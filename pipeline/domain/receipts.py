"""How the world learns that an event is stored: one notice from each store."""

from typing import Literal

from pipeline.domain.versions import Outcome
from schemas.events import Enriched, MemoryStored, Stored, UserErased, UserForgotten

Store = Literal["record", "index"]
STORES: tuple[Store, ...] = ("record", "index")


def done(change: Enriched, store: Store, outcome: Outcome) -> Stored:
    """The notice that `store` has done with `change`."""
    told = {
        "event_id": change.event_id,
        "user_id": change.user_id,
        "version": change.version,
        "published_at": change.published_at,
        "hops": change.hops,
        "store": store,
    }
    if isinstance(change, UserForgotten):
        copy = {"partition": change.partition, "partitions": change.partitions}
        return UserErased.model_construct(**told, **copy)
    return MemoryStored.model_construct(**told, memory_id=change.memory_id, outcome=outcome)
