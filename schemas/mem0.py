"""What the Mem0 poller has seen: its checkpoint, on compacted topics of its own.

Published together with the events that follow from it, so that it never tells more nor less than they do.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.events import Message, Utc, Version

Count = Annotated[int, Field(ge=0)]


class Mem0Seen(Message):
    """One memory of Mem0 as it was last seen."""

    type: Literal["Mem0Seen"] = "Mem0Seen"
    project_id: str
    memory_id: str
    user_id: str | None = None
    """None: it is nobody's, an agent's alone."""
    fingerprint: str
    """Of all that Mem0 says of it but its times."""
    updated_at: Utc | None = None
    """Mem0's; None where it tells none."""
    version: Version
    """Of the last event that was published of it, or would have been."""
    first_seen_at: Utc
    changed_at: Utc
    """When the last change was seen, by the poller's clock."""
    published: bool = True
    """Whether the stream holds a state of it."""
    forgotten: bool = False
    """Whether it was deleted."""
    unusable: str | None = None
    """Why its newest state could not be published."""


class Mem0CycleEnded(Message):
    """Everything that had changed in Mem0 was published."""

    type: Literal["Mem0CycleEnded"] = "Mem0CycleEnded"
    project_id: str
    cycle: Count
    started_at: Utc
    took_s: Annotated[float, Field(ge=0)]
    requests: Count
    """To Mem0."""
    users: Count
    """Who have memories."""
    memories: Count
    added: Count = 0
    updated: Count = 0
    deleted: Count = 0
    errors: Count = 0
    swept_at: Utc | None = None
    """When all memories were last listed."""
    newest: Utc | None = None
    """The greatest `updated_at` that was seen."""
    newest_seen_at: Utc | None = None
    floor: Utc | None = None
    """From which `updated_at` on the next cycle asks; None: it lists everything."""
    dropped_until: Count | None = None
    """The greatest version of the deleted memories that the checkpoint holds no more."""
    known_until: Utc | None = None
    """Much was missing and stayed: what is missing is measured by what was first seen up to then."""
    asked: bool = False
    """After it much was missing, and a person was asked whether that was meant."""


Kept = Mem0Seen | Mem0CycleEnded

KEPT: TypeAdapter[Kept] = TypeAdapter(Annotated[Kept, Field(discriminator="type")])
