"""The events of a memory's life: facts in the past tense, frozen, versioned.

    MemoryCaptured, MemoryRevised            -> memory.events
    MemoryClassified                         -> memory.classified
    MemoryEnriched                           -> memory.enriched
    MemoryForgotten, UserForgotten           -> all three, unchanged
    MemoryStored, UserErased,
    MemorySetAside, MemoryRedriven           -> memory.stored
    MemoryRecalled, MemoryArchived,
    MemoryRestored, MemoryConsolidated       -> memory.recalled
    MemoryTiered                             -> memory.tiered
    DeadLetterRedriven, DeadLetterDropped    -> memory.dead, behind the letters

`version` orders the states of one memory, in microseconds; the greatest wins in every store, whatever
the order of arrival, and `event_id` breaks a tie. Adding an optional field needs no new schema version:
readers ignore what they do not know.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    TypeAdapter,
    model_validator,
)

from schemas.text import Id, Metadata, Storable, Text

MOST_BESIDE = 2
"""Texts that are told on either side of a memory: those before it, and those after."""
MAX_VERSION = 2**53 - 1
"""Qdrant compares numbers as doubles: beyond this two versions would look equal."""

Version = Annotated[int, Field(ge=1, le=MAX_VERSION)]
Precedence = Annotated[int, Field(ge=-MAX_VERSION, le=MAX_VERSION)]
"""A state's version, below zero where it was published under an idempotency key: the greatest wins."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not within the years 1 to 9999 of UTC") from None


Utc = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Domain = Literal["coding", "business", "other"]
LivingTier = Literal["short", "medium", "long"]
"""Short, medium or long term: how slowly a memory that is not used fades."""
Tier = Literal["short", "medium", "long", "archived"]
"""`archived` is kept, and found by who asks for it."""
MAX_MERGED = 256
"""Memories that one stands for."""
StageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Outcome = Literal["stored", "superseded", "forgotten"]
"""What became of an event: its state is held; another state of its memory has won; it was forgotten."""


class Message(BaseModel):
    """Anything that travels: frozen, and tolerant of fields it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64"
    )

    schema_version: Literal[1] = 1


class Vectors(BaseModel):
    """A matrix as bytes: `shape` rows and columns, row by row, little endian."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    dtype: Literal["float32", "float16"]
    shape: tuple[int, int]
    data: bytes

    @model_validator(mode="after")
    def _bytes_match_shape(self) -> Self:
        width = 4 if self.dtype == "float32" else 2
        if min(self.shape) < 0 or len(self.data) != math.prod(self.shape) * width:
            raise ValueError(f"{len(self.data)} bytes are not {self.shape} of {self.dtype}")
        return self


class SparseVector(BaseModel):
    """Terms and their weights: `indices` are hashed terms, `values` their saturated frequencies."""

    model_config = ConfigDict(frozen=True)

    indices: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], FailFast()] = ()
    values: Annotated[tuple[FiniteFloat, ...], FailFast()] = ()

    @model_validator(mode="after")
    def _one_value_an_index(self) -> Self:
        if len(self.indices) != len(self.values):
            raise ValueError("indices and values differ in length")
        return self


class Event(Message):
    """What happened, to whom, and when it was said to have happened."""

    event_id: UUID
    user_id: Id
    version: Version
    published_at: Utc
    hops: dict[StageName, Utc] = {}
    """When each stage let the event go, by stage: where the time went."""


class MemoryEvent(Event):
    """An event of one memory. `memory_id` names it within its user."""

    memory_id: Id


class Said(BaseModel):
    """Something said: by whom and when, where that is known."""

    model_config = ConfigDict(frozen=True)

    text: Text
    speaker: Id | None = None
    occurred_at: Utc | None = None


AnyState = TypeVar("AnyState", bound="MemoryState")


class MemoryState(MemoryEvent):
    """The whole of a memory, so that no stage needs a state of its own to understand it."""

    text: Text
    occurred_at: Utc
    """When what the memory tells happened, as far as the publisher knows."""
    speaker: Id | None = None
    agent_id: Id | None = None
    app_id: Id | None = None
    run_id: Id | None = None
    """The conversation, or the run of an agent, that the memory comes from."""
    metadata: Metadata = {}
    preceding: Annotated[tuple[Said, ...], Field(max_length=MOST_BESIDE, fail_fast=True)] = ()
    """What was said just before in the same conversation, the nearest last."""
    following: Annotated[tuple[Said, ...], Field(max_length=MOST_BESIDE, fail_fast=True)] = ()
    """What was said just after, the nearest first: known once the conversation went on."""
    context: Annotated[int, Field(ge=0, le=MAX_VERSION)] = 0
    """Which reading of the conversation this is, by the record: the greatest knows most. 0 is the publisher's
    own."""
    if_absent: bool = False
    """Published under an idempotency key: yields to any other state of the same memory."""

    def becomes(self, kind: type[AnyState], more: Mapping[str, Any]) -> AnyState:
        """The same state as another kind of event, with `more` fields.

        Nothing is validated again: `self` was, and `more` is ours.
        """
        own = {name: getattr(self, name) for name in type(self).model_fields if name != "type"}
        return kind.model_construct(_fields_set=None, **own, **more)


class MemoryCaptured(MemoryState):
    """Something was remembered."""

    type: Literal["MemoryCaptured"] = "MemoryCaptured"


class MemoryRevised(MemoryState):
    """A memory was replaced by a newer state of itself."""

    type: Literal["MemoryRevised"] = "MemoryRevised"


class MemoryForgotten(MemoryEvent):
    """A memory was forgotten, and stays so when an older event arrives late."""

    type: Literal["MemoryForgotten"] = "MemoryForgotten"


class UserForgotten(Event):
    """Everything of one user up to `version` was forgotten.

    One copy goes to each partition, so that on each of them it stands after all it must outlive.
    """

    type: Literal["UserForgotten"] = "UserForgotten"
    partition: Annotated[int, Field(ge=0)]
    partitions: Annotated[int, Field(ge=1)]


class UnderstoodState(MemoryState):
    """A memory's state, and what it is about."""

    domain: Domain
    topics: Annotated[tuple[Id, ...], FailFast()] = ()
    """Most telling first."""
    importance: Annotated[float, Field(ge=0, le=1)] = 0.5


class MemoryClassified(UnderstoodState):
    """A memory, and what it is about."""

    type: Literal["MemoryClassified"] = "MemoryClassified"


class MemoryEnriched(UnderstoodState):
    """A memory, what it is about, and where it lies among the others."""

    type: Literal["MemoryEnriched"] = "MemoryEnriched"
    model: Storable
    """The embedding model that made the vectors."""
    text_vector: Vectors
    """1 x dimensions, normalised."""
    token_vectors: Vectors
    """tokens x 64, each normalised; may be empty."""
    topic_vectors: Vectors
    """topics x dimensions, normalised; may be empty."""
    lexical_vector: SparseVector


class MemoryStored(MemoryEvent):
    """One store has done with one event: from now on it answers from this state, or from a newer one."""

    type: Literal["MemoryStored"] = "MemoryStored"
    store: Literal["record", "index"]
    outcome: Outcome
    context: Annotated[int, Field(ge=0)] = 0
    """Of a state: which reading of its conversation this is."""
    held: Annotated[int, Field(ge=0)] = 0
    """Which reading of the same state the record holds: a greater one has come before this."""
    in_conversation: bool = False
    """Whether other memories are understood by this one: it belongs to a conversation, or was forgotten."""


class UserErased(Event):
    """One store has done with one partition's copy of UserForgotten."""

    type: Literal["UserErased"] = "UserErased"
    store: Literal["record", "index"]
    partition: Annotated[int, Field(ge=0)]
    partitions: Annotated[int, Field(ge=1)]


class MemoryRecalled(MemoryEvent):
    """An answer told of a memory. `version` is that of the state it told."""

    type: Literal["MemoryRecalled"] = "MemoryRecalled"
    at: Utc


class MemoryArchived(MemoryEvent):
    """A memory was put away: it is kept, and not found unless asked for. `version` orders such words."""

    type: Literal["MemoryArchived"] = "MemoryArchived"
    reason: Literal["pruned", "consolidated"]
    batch: Id
    """What was archived together, so that it can be restored together."""
    into: Id | None = None
    """The memory that stands for it from now on."""
    of_version: Version | None = None
    """Of the state that was looked at: one of a greater version is not put away. `version` unless given."""


class MemoryRestored(MemoryEvent):
    """An archived memory was brought back."""

    type: Literal["MemoryRestored"] = "MemoryRestored"


class MemoryConsolidated(MemoryEvent):
    """A memory stands for others, or does no longer."""

    type: Literal["MemoryConsolidated"] = "MemoryConsolidated"
    merged: Annotated[tuple[Id, ...], Field(max_length=MAX_MERGED, fail_fast=True)] = ()
    """Near-duplicates that were archived into it."""
    parted: Annotated[tuple[Id, ...], Field(max_length=MAX_MERGED, fail_fast=True)] = ()
    """Those that were brought back."""


class MemoryTiered(MemoryEvent):
    """Where a memory stands by its use. `version` orders these, and not the states of the memory."""

    type: Literal["MemoryTiered"]
    """Alone on its topic: no other kind would tell a message without one apart."""
    tier: Tier
    """At its latest use; it fades from there."""
    strength: Annotated[float, Field(ge=0, le=1)]
    """At its latest use."""
    recalled_at: Utc | None = None
    """The clock hour of its latest use."""
    medium_until: Utc | None = None
    """Until then at least of medium term, if it is not used."""
    long_until: Utc | None = None
    archived_version: Version | None = None
    """It is archived, unless its newest state has a greater version."""
    archived_precedence: Precedence | None = None
    """Of the state that was archived: what wins over it is not, whatever the clocks. The version unless given."""
    of_precedence: Precedence | None = None
    """Of the state that the memory had when this was told: it is of no memory that came anew under the id."""
    reason: str
    """recalled, pruned, consolidated or restored."""
    into: Id | None = None
    batch: Id | None = None
    consolidated: Annotated[tuple[Id, ...], FailFast()] = ()
    """Near-duplicates that it stands for."""


class MemorySetAside(Message):
    """An event went to the dead letters; `reason` says why, without its content."""

    type: Literal["MemorySetAside"] = "MemorySetAside"
    event_id: UUID
    stage: str
    reason: str
    at: Utc


class MemoryRedriven(Message):
    """An event came back from the dead letters: it goes through the stream once more."""

    type: Literal["MemoryRedriven"] = "MemoryRedriven"
    event_id: UUID
    at: Utc


class DeadLetterRedriven(Message):
    """A dead letter was sent back to where it failed. This stands behind it, in its own partition."""

    type: Literal["DeadLetterRedriven"] = "DeadLetterRedriven"
    offset: Annotated[int, Field(ge=0)]
    at: Utc


class DeadLetterDropped(Message):
    """A dead letter was given up. This stands behind it, in its own partition."""

    type: Literal["DeadLetterDropped"] = "DeadLetterDropped"
    offset: Annotated[int, Field(ge=0)]
    at: Utc


Forgetting = MemoryForgotten | UserForgotten
Published = MemoryCaptured | MemoryRevised | Forgetting
Classified = MemoryClassified | Forgetting
Enriched = MemoryEnriched | Forgetting
Stored = MemoryStored | UserErased | MemorySetAside | MemoryRedriven
Settled = DeadLetterRedriven | DeadLetterDropped
Lived = MemoryRecalled | MemoryArchived | MemoryRestored | MemoryConsolidated

PUBLISHED: TypeAdapter[Published] = TypeAdapter(Annotated[Published, Field(discriminator="type")])
CLASSIFIED: TypeAdapter[Classified] = TypeAdapter(
    Annotated[Classified, Field(discriminator="type")]
)
ENRICHED: TypeAdapter[Enriched] = TypeAdapter(Annotated[Enriched, Field(discriminator="type")])
STORED: TypeAdapter[Stored] = TypeAdapter(Annotated[Stored, Field(discriminator="type")])
SETTLED: TypeAdapter[Settled] = TypeAdapter(Annotated[Settled, Field(discriminator="type")])
LIVED: TypeAdapter[Lived] = TypeAdapter(Annotated[Lived, Field(discriminator="type")])
