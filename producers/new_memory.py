"""What an application gives to be remembered, how it is checked, and what is left where Kafka goes away.

All of it is checked before anything is published, in words that name the field that is wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.domain.telling import told
from pipeline.errors import Refused, Unavailable
from producers.moments import Moment, moments
from producers.receipts import Receipt
from schemas.events import MAX_VERSION, MOST_BESIDE, MemoryCaptured, Said
from schemas.text import Id, Metadata, Text

Built = TypeVar("Built", bound=BaseModel)


def _as_said(given: Any) -> Any:
    return {"text": given} if isinstance(given, str) else moments(given, "occurred_at")


class NewMemory(BaseModel):
    """Something to remember, and whose it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Text
    user_id: Id
    memory_id: Id | None = None
    """Made up unless given. The same id of the same user is the same memory."""
    occurred_at: Moment | None = None
    """When what it tells happened; now unless given. ISO 8601 without an offset is UTC."""
    speaker: Id | None = None
    agent_id: Id | None = None
    app_id: Id | None = None
    run_id: Id | None = None
    metadata: Metadata = {}
    preceding: tuple[Annotated[Said, BeforeValidator(_as_said)], ...] = Field(
        default=(), max_length=MOST_BESIDE
    )
    """What was said just before in the same conversation, the nearest last; a text is one of nobody."""
    idempotency_key: Id | None = None
    """Publishing again with the same key changes nothing, not even after a revision or a forgetting.

    With a `memory_id`, too, it is remembered only where no such memory is, or ever was.
    """


class PartlyPublished(Unavailable):
    """Kafka went away before it had acknowledged all: `remember_many(error.left)` goes on, with no doubles."""

    def __init__(self, why: str, accepted: list[Receipt], left: list[NewMemory]) -> None:
        super().__init__(why)
        self.accepted = accepted
        """Receipts of the first ones, which Kafka has for certain."""
        self.left = left
        """The others, with the ids that were made up for them. Some of them may have arrived."""


def built(kind: type[Built], **fields: Any) -> Built:
    """Raises Refused, which says what is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise Refused(told(error)) from error


def checked(index: int, memory: NewMemory | Mapping[str, Any]) -> NewMemory:
    """One of many as given, by its place among them. Raises Refused."""
    if isinstance(memory, NewMemory):
        return memory
    try:
        return NewMemory.model_validate(memory)
    except ValidationError as error:
        raise Refused(f"Memory {index}: {told(error)}. Nothing was published.") from error


def checked_versions(
    memories: Sequence[NewMemory], versions: Sequence[int] | None
) -> Sequence[int | None]:
    """The version of each, None where the clock is to give it. Raises Refused."""
    if versions is None:
        return [None] * len(memories)
    if len(versions) != len(memories):
        raise Refused(f"{len(memories)} memories and {len(versions)} versions: give one for each.")
    if any(memory.idempotency_key is None for memory in memories):
        raise Refused("versions: go with an idempotency_key, without which each is another event.")
    if any(not 1 <= version <= MAX_VERSION for version in versions):
        raise Refused(f"versions: are microseconds since 1970, from 1 to {MAX_VERSION}.")
    return versions


def partly_published(
    error: Unavailable,
    accepted: list[Receipt],
    memories: Sequence[NewMemory],
    events: Sequence[MemoryCaptured],
) -> PartlyPublished:
    """What to raise where `memories`, published as `events`, may not have arrived."""
    left = [
        memory.model_copy(
            update={
                "occurred_at": event.occurred_at,
                # Under a key the id follows from it; naming it, too, would be another event.
                "memory_id": memory.memory_id if memory.idempotency_key else event.memory_id,
            }
        )
        for memory, event in zip(memories, events, strict=True)
    ]
    why = str(error)
    if any(memory.memory_id is None and memory.idempotency_key is None for memory in memories):
        how = (
            f"give memory_id={left[0].memory_id!r}"
            if len(left) == 1
            else "`remember_many(error.left)`"
        )
        why += f" To repeat it without doubles: {how}."
    return PartlyPublished(why, accepted, left)
