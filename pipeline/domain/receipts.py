"""How the world learns that an event is stored: one notice from each store, and what it comes to."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

from pipeline.domain.versions import Outcome
from schemas.events import (
    Enriched,
    MemoryForgotten,
    MemoryStored,
    Stored,
    UserErased,
    UserForgotten,
)

Store = Literal["record", "index"]
STORES: tuple[Store, ...] = ("record", "index")

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def summed(outcomes: Iterable[Outcome]) -> Outcome:
    """What became of an event, given what became of it in each store: only what both hold is stored."""
    return max(outcomes, key=_OUTCOMES.index)


def done(change: Enriched, store: Store, outcome: Outcome, held: int = 0) -> Stored:
    """The notice that `store` has done with `change`, and holds the reading `held` of it."""
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
    told |= {"memory_id": change.memory_id, "outcome": outcome}
    if isinstance(change, MemoryForgotten):
        # What conversation a forgotten memory belonged to is forgotten, too.
        return MemoryStored(**told, in_conversation=True)
    told |= {"context": change.context, "held": held}
    return MemoryStored(**told, in_conversation=change.run_id is not None)
