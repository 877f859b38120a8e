"""What the caller of a publication holds: is it searchable yet, and is it what is found?

A receipt names one event. It can be awaited, asked about later, and carried to another process as a token.
"""

from collections.abc import Sequence
from typing import Annotated, Protocol, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter

from pipeline.domain.receipts import STORES, Store
from pipeline.errors import Refused
from schemas.events import MemoryCaptured, MemoryForgotten, MemoryRevised, Outcome, Version
from schemas.search import EventRef, ReceiptState
from schemas.text import Id

OfMemory = MemoryCaptured | MemoryRevised | MemoryForgotten
"""What is published of one memory."""

Part = tuple[Store, int]
"""What has to be heard from: each store, for each partition that the event went to."""


class Answering(Protocol):
    """Who knows what became of events: `producers.waiting`."""

    async def wait(
        self, receipts: Sequence["AnyReceipt"], *, timeout_s: float
    ) -> list[Outcome | None]: ...

    async def ask(
        self, receipts: Sequence["AnyReceipt"], *, timeout_s: float
    ) -> list[ReceiptState]: ...


class AnyReceipt(BaseModel):
    """What every receipt can do."""

    model_config = ConfigDict(frozen=True)

    user_id: Id
    event_id: UUID
    version: Version
    _receipts: "Answering | None" = PrivateAttr(default=None)

    @property
    def token(self) -> str:
        """The receipt as a string, for `MemoryClient.receipt` in another process."""
        return self.model_dump_json()

    @property
    def parts(self) -> set[Part]:
        """Who has to say that it has done with the event."""
        return {(store, 0) for store in STORES}

    @property
    def event(self) -> EventRef:
        """The event, as the stores are asked about it."""
        raise NotImplementedError

    def answered_by(self, receipts: "Answering") -> Self:
        """The same receipt, able to ask."""
        self._receipts = receipts
        return self

    async def stored(self, *, timeout_s: float = 30.0) -> Outcome:
        """Returns once both stores have done with the event, and tells what became of it:

        - "stored": both answer from this state. What was forgotten is forgotten.
        - "superseded": both answer from another one, because it is newer, or because this one was
          published under an idempotency key and there was a state already. A forgetting that is
          superseded has not forgotten anything.
        - "forgotten": the memory or its user was forgotten; what was said here is not found any more.

        Raises Unavailable when `timeout_s` have passed (it may still come: wait again), and Unusable
        with the reason when the event went to the dead letters.
        """
        (outcome,) = await self._asked.wait([self], timeout_s=timeout_s)
        assert outcome is not None, "what is set aside raises"
        return outcome

    async def status(self, *, timeout_s: float = 10.0) -> ReceiptState:
        """How far each store is, and what became of the event, as of now.

        Raises Unavailable where nobody answers.
        """
        (state,) = await self._asked.ask([self], timeout_s=timeout_s)
        return state

    @property
    def _asked(self) -> "Answering":
        if self._receipts is None:
            raise Refused("This receipt belongs to no client: use `client.receipt(token)`.")
        return self._receipts


class Receipt(AnyReceipt):
    """Kafka has the event. Whether it is searchable yet can be awaited, or asked about later."""

    memory_id: Id
    if_absent: bool = False
    """Published under an idempotency key."""
    found: bool | None = None
    """Of a forgetting: whether there was such a memory; None where nobody could say so in time."""
    was_forgotten: Annotated[bool, Field(exclude=True)] = False
    """Of a forgetting that found nothing: whether it was forgotten before. No token tells it."""

    @classmethod
    def of(cls, event: OfMemory, *, found: bool | None = None, was_forgotten: bool = False) -> Self:
        """Of an event that Kafka has; what is said of a forgetting goes with it."""
        return cls(
            user_id=event.user_id,
            memory_id=event.memory_id,
            event_id=event.event_id,
            version=event.version,
            if_absent=isinstance(event, MemoryCaptured) and event.if_absent,
            found=found,
            was_forgotten=was_forgotten,
        )

    @property
    def event(self) -> EventRef:
        return EventRef(
            event_id=self.event_id,
            memory_id=self.memory_id,
            version=self.version,
            if_absent=self.if_absent,
        )


class UserReceipt(AnyReceipt):
    """The receipt for the forgetting of a user, which goes to each partition."""

    partitions: Annotated[int, Field(ge=1)]
    memories: Annotated[int | None, Field(exclude=True)] = None
    """How many the record held of the user before; None where nobody could say in time. No token tells it."""

    @property
    def parts(self) -> set[Part]:
        return {(store, partition) for store in STORES for partition in range(self.partitions)}

    @property
    def event(self) -> EventRef:
        return EventRef(event_id=self.event_id, version=self.version)


TOKEN: TypeAdapter[Receipt | UserReceipt] = TypeAdapter(Receipt | UserReceipt)
