"""Whose points: no condition for a search can be built without the user whom it is for.

What decides who may see which memory is said once, in `of_user`.
"""

from datetime import datetime

from pipeline.domain.identity import memory_key
from pipeline.stores.conditions import AnyOf, AtMost, Condition, Every, Is, holds
from pipeline.stores.narrowing import narrowed
from pipeline.stores.points import FORGOTTEN, MEMORY, USER_FORGOTTEN, Payload
from pipeline.stores.states import named_user
from schemas.events import UserForgotten
from schemas.search import SearchFilter


def of_user(user_id: str) -> Every:
    """The memories of one user. Raises Refused where `user_id` names nobody."""
    return Every((Is("user_id", named_user(user_id)), Is("kind", MEMORY)))


def searched(user_id: str, filter: SearchFilter, now: datetime) -> Every:
    """The memories of one user that `filter` leaves. Raises Refused where `user_id` names nobody."""
    return Every((of_user(user_id), *narrowed(filter, now)))


def leaves(where: Condition, payload: Payload) -> bool:
    """Whether a memory that is in no index meets what a search asks."""
    return holds(where, memory_key(payload["user_id"], payload["memory_id"]), payload)


def erased_by(forgetting: UserForgotten) -> Every:
    """What goes with a user, memories and tombstones. Raises Refused where it names nobody."""
    return Every(
        (
            Is("user_id", named_user(forgetting.user_id)),
            AnyOf("kind", (MEMORY, FORGOTTEN)),
            AtMost("version", forgetting.version),
        )
    )


def counted(user_id: str | None) -> Condition:
    """The memories of one user, or of all. Raises Refused where `user_id` names nobody."""
    return Is("kind", MEMORY) if user_id is None else of_user(user_id)


ANY_POINT = AnyOf("kind", (MEMORY, FORGOTTEN, USER_FORGOTTEN))
"""Every memory, tombstone and watermark; not the generations."""
