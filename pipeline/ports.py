"""What the stages ask of the world, in our words. The adapters stand in models/ and stores/.

Every method may raise `Unavailable` (try again later); what else a method raises is said at it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, Self, runtime_checkable
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pipeline.domain.periods import Period
from pipeline.domain.ranking import Candidate
from pipeline.domain.tiers import Tiers
from pipeline.domain.versions import Known, Outcome
from schemas.events import (
    Domain,
    Enriched,
    Lived,
    MemoryCaptured,
    MemoryClassified,
    MemoryForgotten,
    MemoryTiered,
    Published,
    SparseVector,
    UserForgotten,
)
from schemas.search import EventRef, Hit, KnownMemory, Mode, RecordedMemory, SearchFilter

Floats = NDArray[np.float32]
"""A matrix or a vector of float32."""
Halves = NDArray[np.float16]
"""A matrix of float16."""


TOKEN_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class Embedding:
    """One text as the model sees it, from one forward pass."""

    text: Floats
    """dimensions, normalised."""
    tokens: Halves
    """tokens x 64, each normalised; stop words and punctuation left out; may have no rows."""

    @classmethod
    def nowhere(cls, dimensions: int) -> Self:
        """Of a text that is compared by its words alone: zeros, and no model was asked."""
        return cls(
            np.zeros(dimensions, np.float32), np.zeros((0, TOKEN_DIMENSIONS), dtype=np.float16)
        )


@dataclass(frozen=True, slots=True)
class Question:
    """A question as the index is asked it."""

    embedding: Embedding
    terms: SparseVector
    """Its words as BM25 counts them, each once; none where it has stop words only."""
    topics: Floats | None = None
    """topics x dimensions: what it is about, where that is to count."""
    periods: Sequence[Period] = ()
    """When it happened, as the question says it, where that is to count."""


@dataclass(frozen=True, slots=True)
class Believed:
    """A state that a memory had, and where the memory stands today."""

    state: MemoryCaptured
    """Without `preceding`."""
    newest: int
    """The precedence of its state of today."""
    told: MemoryTiered | None
    """Of its life, the latest; None where it was never of use, nor put away."""


TooMuch = Literal["written", "said"]
"""Why a past is not looked through: so many memories were written since, or the states of then say so much."""


@dataclass(frozen=True, slots=True)
class PastState:
    """A state that a memory had, understood and placed anew."""

    state: MemoryClassified
    embedding: Embedding
    newest: int
    told: MemoryTiered | None
    """As of `Believed`."""
    topics: tuple[Floats, ...] = ()
    """dimensions each."""


@dataclass(frozen=True, slots=True)
class Past:
    """A moment, and the states that memories had then which have changed since."""

    version: int
    """The moment, in microseconds."""
    states: Sequence[PastState] = ()


@dataclass(frozen=True, slots=True)
class Classification:
    """What a text is about."""

    domain: Domain
    topics: tuple[str, ...]
    """Most telling first; may be empty."""
    importance: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What `verify` compares of one memory, or of one user's forgetting, between the stores."""

    key: UUID
    known: Known
    content_hash: str
    """Empty for a forgotten memory."""
    watermark: bool = False
    """Tells up to which version a user was forgotten; the key is the user's."""
    life: int | None = field(default=None, compare=False)
    """The version of what the store knows of the use of a living memory, 0 for nothing. Compared by itself: it
    is written by another hand than the state. None where nobody told."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One state that a memory had. The text of a forgotten memory is gone here too."""

    change: str
    """captured, revised or forgotten."""
    version: int
    event_id: UUID
    published_at: datetime
    text: str | None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@dataclass(frozen=True, slots=True)
class Belonging:
    """A memory that a user has, as who tidies up looks at it."""

    user_id: str
    memory_id: str
    text: str
    speaker: str | None
    agent_id: str | None
    app_id: str | None
    run_id: str | None
    metadata: Mapping[str, JsonValue]
    occurred_at: datetime
    published_at: datetime
    version: int
    precedence: int
    """The version, below zero where the state yields to any other."""
    importance: float
    told: MemoryTiered | None
    """Where it stands; None where nothing was heard of its use."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What may have changed what others are understood by; memories by their keys."""

    memories: set[UUID] = field(default_factory=set[UUID])
    """Memories that changed: they are looked at, those beside them, and those beside whom they were."""
    alone: set[UUID] = field(default_factory=set[UUID])
    """Memories that are in no conversation now: those beside whom they were are looked at."""
    users: set[str] = field(default_factory=set[str])
    """Users who were forgotten: what is left of them is looked at."""
    read: set[UUID] = field(default_factory=set[UUID])
    """Memories to be looked at by themselves."""
    again: set[UUID] = field(default_factory=set[UUID])
    """Memories to be told in any case, where they are not forgotten."""

    def __bool__(self) -> bool:
        return bool(self.memories or self.alone or self.users or self.read or self.again)


@dataclass(frozen=True, slots=True)
class Reading:
    """A memory beside which something else is said than what it has heard."""

    memory: MemoryClassified
    """As it comes once more. Its `context` is the number of this reading, greater than any before."""
    heard: int
    """The number of the reading that the record holds."""


class Classifier(Protocol):
    """Says what texts are about."""

    def classify(self, texts: Sequence[str]) -> Sequence[Classification]:
        """One classification a text, in order. Pure; it is called in a thread."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors. It never blocks the event loop."""

    @property
    def model(self) -> str:
        """The model's name, as kept beside the vectors it made."""
        ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """One embedding a text, in order. The caller may pass any number of texts of any length.

        Raises Unusable where the model makes no finite vector of a text.
        """
        ...

    async def close(self) -> None: ...


class Reranker(Protocol):
    """Reads a question and a text together, and says how well the one answers the other.

    It never blocks the event loop.
    """

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    async def scores(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        """How well each text answers, in order: greater is better, on a scale of the model's own. May be
        cancelled.

        Raises Unavailable where the model fails, or gives what is no number.
        """
        ...

    async def close(self) -> None: ...


class Fingerprints(Protocol):
    """What a store holds, told without a word of it. Each page is small, so that memory stays constant."""

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        """Up to `limit` beyond `after`, in the order of their keys; fewer only at the end.

        Memories, tombstones, and the watermarks of users that were forgotten.
        """
        ...

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        """Of those of `keys` that there are, in any order."""
        ...


class MemoryRecords(Fingerprints, Protocol):
    """The record: every memory's newest state, and the states it had."""

    async def write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        """Writes a batch, in order; says what became of each change. Where it raises, a part may be done.

        Safe to repeat. `pipeline.stores.states.decide` says which state wins.
        """
        ...

    async def live(self, events: Sequence[Lived], tiers: Tiers) -> Sequence[MemoryTiered | None]:
        """Keeps what is heard of memories' use, all or nothing; says where each stands then.

        None for a memory that is not there, or was forgotten. Safe to repeat, in any order.
        `pipeline.domain.tiers` says what follows from what.
        """
        ...

    async def lives(self, after: UUID | None, limit: int) -> Sequence[tuple[UUID, MemoryTiered]]:
        """Where memories stand whose use was heard of, by key, in the order of the keys beyond `after`.

        Each of the state that the memory has now.
        """
        ...

    async def remembered_anew(self, after: UUID | None, limit: int) -> Sequence[MemoryForgotten]:
        """The last forgetting of each memory that was remembered anew since, by key, beyond `after`.

        Without those of whole users: their watermarks tell of them.
        """
        ...

    async def belongings(
        self, user_id: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[Belonging]:
        """Memories of one user, or of all, in the order of (user, memory id) beyond `after`."""
        ...

    async def get(self, user_id: str, memory_id: str) -> RecordedMemory | None:
        """The newest state; None where there is none, or it was forgotten."""
        ...

    async def past(
        self, user_id: str, version: int, *, limit: int, among: int, most_bytes: int
    ) -> Sequence[Believed] | TooMuch:
        """The states that memories had at `version`, of those that have changed since, by memory id.

        At most `limit`. "written" where more than `among` memories are newer, as each is looked at; "said"
        where texts and metadata of these states have more than `most_bytes` as UTF-8. What was forgotten is
        not told. Raises Refused without a user.
        """
        ...

    async def state_at(self, user_id: str, memory_id: str, version: int) -> Believed | None:
        """The state that a memory had at `version`; None where it has not changed since, or was forgotten."""
        ...

    async def is_forgotten(self, user_id: str, memory_id: str) -> bool:
        """Whether the record holds the memory's tombstone."""
        ...

    async def forgotten_until(self, user_id: str, memory_id: str) -> int:
        """Up to which version the memory was forgotten, or all of its user; 0 where neither was.

        Also where the record has never had such a memory: what is on its way may be of before.
        """
        ...

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        """What became of each event, as of now; None where the record has not read it yet.

        The forgetting of a user is stored once all up to its version is forgotten.
        """
        ...

    async def newest(self, user_id: str) -> int:
        """The greatest version among the user's states, tombstones too; 0 where there is none."""
        ...

    async def history(self, user_id: str, memory_id: str) -> Sequence[AuditEntry]:
        """The states a memory had, oldest version first."""
        ...

    async def publishable(self, keys: Sequence[UUID]) -> Sequence[Published]:
        """The newest states under `keys`, as the events that brought them, to be published again.

        A memory that went with its user is a MemoryForgotten with an id of its own, the same each time; a
        user's key gives a UserForgotten, as the copy of partition 0. `preceding` is what its publisher
        told, without what was forgotten since; where that is nothing, the two memories of the same run
        before it. `following` are the two after it.
        """
        ...

    async def contexts(self, changes: Changes) -> Sequence[Reading]:
        """The memories beside which something else is said than what their vectors have heard."""
        ...

    async def readings(self, keys: Sequence[UUID]) -> Mapping[UUID, int]:
        """The numbers of the readings that the record holds; of a publisher's own state it tells none."""
        ...

    async def gone_with(
        self, forgetting: UserForgotten, after: str, limit: int
    ) -> Sequence[MemoryForgotten]:
        """What tells of each memory that went with its user, up to this version and no other.

        Up to `limit`, in the order of their memory ids beyond `after`; as `publishable` tells of them.
        """
        ...

    async def count(self, user_id: str | None = None) -> int:
        """Memories that are not forgotten, of one user or of all."""
        ...

    async def close(self) -> None: ...


class MemoryVectors(Fingerprints, Protocol):
    """The index: finds the memories of one user that are closest to a question."""

    async def write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        """Writes a batch, in order; says what became of each change. Durable when it returns.

        Safe to repeat. `pipeline.stores.states.decide` says which state wins.
        Raises Unusable where a vector does not fit the index (dimensions, names, not finite).
        """
        ...

    async def tier(self, told: Sequence[MemoryTiered]) -> None:
        """Writes where memories stand, the newest word on each; durable when it returns.

        What is not there, or was forgotten, stays so. Later states of a memory keep what is written here.
        """
        ...

    async def search(
        self,
        user_id: str,
        question: Embedding,
        *,
        filter: SearchFilter,
        limit: int,
        min_score: float | None,
        past: Past | None = None,
    ) -> Sequence[Hit]:
        """The closest memories of `user_id`, best first; equal scores in the order of their ids.

        With a `past`, those that have not changed since, and its states. Raises Refused without a user.
        """
        ...

    async def candidates(
        self,
        user_id: str,
        question: Question,
        *,
        filter: SearchFilter,
        mode: Mode,
        depth: int,
        past: Past | None = None,
    ) -> Sequence[Candidate]:
        """What may answer the question: the `depth` closest by meaning, and as many by words.

        In any order; `pipeline.domain.ranking` ranks them. With a `past`, of those that have not changed
        since, and of its states. Raises Refused without a user.
        """
        ...

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        """What became of each event, as of now; None where the index has not read it yet."""
        ...

    async def generation(self, user_id: str) -> UUID | None:
        """Another one after every write for this user: what was found under it before is still right.

        Every write whose writer was told that it is done, or that `outcomes` has told of, is contained in a
        search that begins after the generation was read. None: nothing may be kept just now.
        Raises Refused without a user.
        """
        ...

    async def states(self, user_id: str, keys: Sequence[UUID]) -> Sequence[KnownMemory | None]:
        """The newest states of this user's memories under `keys`, as the index holds them; None where
        there is none, it was forgotten, or it is another user's. Raises Refused without a user."""
        ...

    async def count(self, user_id: str | None = None) -> int:
        """Memories that are not forgotten, of one user or of all."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Replaceable(Protocol):
    """An index that its owner can put a fresh one in the place of, while it is used."""

    async def adopt(self, name: str) -> None:
        """From now on every write goes to the fresh index `name`, too. Safe to repeat.

        Raises Refused where there is none, or it holds the vectors of another model.
        """
        ...

    async def switch(self, name: str) -> None:
        """From now on `name` answers; what answered before is removed. Safe to repeat.

        Raises Refused where `name` was not adopted, or was abandoned because a write to it failed.
        """
        ...

    async def abandon(self) -> None:
        """Leaves what was adopted."""
        ...


class Cache(Protocol):
    """Remembers what is dear to compute. It may forget at any time; it never fails its caller."""

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]: ...

    async def put_many(self, entries: Mapping[str, bytes], *, ttl_s: int) -> None: ...

    async def close(self) -> None: ...
