"""What every index engine is told and asked, in our words: points, requests, and the guard of a write.

An engine only translates: conditions to its own filters, arrays to its own vectors. So no two can drift apart.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.ports import Floats, Halves
from pipeline.stores.conditions import (
    EVERYTHING,
    AtMost,
    Below,
    Condition,
    Every,
    HasId,
    Is,
    Not,
    Present,
    Some,
)
from schemas.events import SparseVector, Tier

PAGE = 512
"""Points read at once."""

Payload = dict[str, Any]

MEMORY, FORGOTTEN, USER_FORGOTTEN = "memory", "forgotten", "user_forgotten"
GENERATION = "generation"
"""What a point is: a memory, its tombstone, the watermark of a user, or a user's generation. Words, because Qdrant Edge reads a
match with a boolean as a match with an integer."""

ARCHIVED: Tier = "archived"

LIFE_FIELDS = [
    "life",
    "tier",
    "strength",
    "recalled_at",
    "medium_until",
    "long_until",
    "archived_version",
    "archived_precedence",
    "consolidated",
]
"""Where a memory stands by its use: written by another hand than its state, and carried from state to state."""
STATE_FIELDS = [
    *LIFE_FIELDS,
    "forgotten_until",
    "kind",
    "user_id",
    "memory_id",
    "event_id",
    "precedence",
    "tie",
    "version",
    "published_at",
    "content_hash",
    "context",
]
"""What a writer must know of a point: everything small."""

FOUND_FIELDS = [
    "memory_id",
    "text",
    "occurred_at",
    "speaker",
    "agent_id",
    "app_id",
    "run_id",
    "domain",
    "topics",
    "metadata",
    "version",
    "importance",
    "tier",
    "strength",
    "recalled_at",
    "medium_until",
    "long_until",
    "consolidated",
]
"""What a search tells of a point, and ranks it by."""

INDEXED: Mapping[str, Literal["tenant", "keyword", "integer", "float", "datetime"]] = {
    "user_id": "tenant",
    "kind": "keyword",
    "domain": "keyword",
    "topics": "keyword",
    "occurred_at": "datetime",
    "speaker": "keyword",
    "agent_id": "keyword",
    "app_id": "keyword",
    "run_id": "keyword",
    "importance": "float",
    "metadata_terms": "keyword",
    "metadata_numbers[].key": "keyword",
    "metadata_numbers[].value": "float",
    "version": "integer",
    "precedence": "integer",
    "tie": "integer",
    "life": "integer",
    "tier": "keyword",
    "medium_until": "datetime",
    "long_until": "datetime",
    "context": "integer",
}
"""Payload indexes: everything a filter may name, so that a server in strict mode answers too."""


@dataclass(frozen=True, slots=True)
class IndexShape:
    """What one index holds. Vectors of another model do not belong there, whatever their length."""

    model: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class PointVectors:
    """The vectors of one memory; a matrix may have no rows."""

    text: Floats
    """dimensions, cosine."""
    tokens: Halves
    """tokens x 64, dot product, the best match of each."""
    topics: Floats
    """topics x dimensions, cosine, the best match of each."""
    bm25: SparseVector

    @property
    def numbers(self) -> int:
        """How many the dense ones have together."""
        return self.text.size + self.tokens.size + self.topics.size


@dataclass(frozen=True, slots=True)
class Point:
    """One point as every engine keeps it; a tombstone has no vectors."""

    id: UUID
    payload: Payload
    vectors: PointVectors | None


@dataclass(frozen=True, slots=True)
class Found:
    """A point near the question."""

    id: UUID
    payload: Payload
    """The FOUND_FIELDS; empty where the request is for the place alone."""
    score: float
    """By the vector that was asked: cosine, BM25, or the sum of each token's, or topic's, best match."""
    terms: SparseVector | None = None
    """Its words, where they were asked for."""


@dataclass(frozen=True, slots=True)
class Nearby:
    """Where to look first."""

    keys: frozenset[UUID]
    beyond: float
    """What the user's other points score at most."""


_ROUNDING = 1e-5
"""By so much may two engines' cosines of the same vectors differ."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """One request: the points closest to a vector, or to each row of a matrix."""

    using: Literal["text", "tokens", "topics", "bm25"]
    vector: NDArray[np.floating] | SparseVector
    limit: int
    among: tuple["Nearest", ...] = ()
    """Only what these find, which are asked before it by themselves: this one is for the place alone."""
    with_terms: bool = False
    first: Nearby | None = None
    """Where an engine may look first; then everywhere, unless that `suffices`."""
    within: Condition = EVERYTHING
    """What must hold of these points beside what must hold of all that is asked."""

    def suffices(self, found: Sequence[Found]) -> bool:
        """Whether what was found among the keys of `first` is all that there is to find."""
        beyond = self.first.beyond if self.first else -math.inf
        return len(found) == self.limit and found[-1].score > beyond + _ROUNDING


@dataclass(frozen=True, slots=True)
class Amendment:
    """Fields to set in the payload of one point, if it meets `where`."""

    payload: Payload
    where: Every


class Points(Protocol):
    """What an engine must do. It may raise `Unavailable` anywhere."""

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        """The STATE_FIELDS of those of `ids` that there are."""
        ...

    async def read(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        """All that is kept beside the vectors of those of `ids` that there are."""
        ...

    async def put(self, points: Sequence[Point]) -> None:
        """Writes each point unless a newer one is there: `replaceable` is the guard."""
        ...

    async def amend(self, amendments: Sequence[Amendment]) -> None:
        """Sets fields in the payloads of points that meet their conditions; the others stay as they are."""
        ...

    async def settle(self) -> None:
        """Returns when all that was put would outlive a power cut."""
        ...

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        """For each request the points that meet `where`, closest first; one request to the engine."""
        ...

    async def page(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Payload]]:
        """The STATE_FIELDS of up to PAGE points beyond `after`, in the order of their ids."""
        ...

    async def count(self, where: Condition) -> int: ...

    async def close(self) -> None: ...


def in_pieces(
    points: Sequence[Point], cost: Callable[[Point], int], *, most_points: int, most_cost: int
) -> Iterator[Sequence[Point]]:
    """The points in their order, cut into what goes at once; one that costs more than all may goes alone."""
    piece: list[Point] = []
    spent = 0
    for point in points:
        more = cost(point)
        if piece and (len(piece) == most_points or spent + more > most_cost):
            yield piece
            piece, spent = [], 0
        piece.append(point)
        spent += more
    if piece:
        yield piece


def replaceable(points: Sequence[Point]) -> Some:
    """The guard of a write: points that are not newer than what is about to replace them.

    A consumer that lost its partition may still be writing what it read before.
    """
    return Some(tuple(condition for point in points for condition in _not_newer(point)))


def _not_newer(point: Point) -> tuple[Every, ...]:
    precedence, tie = point.payload["precedence"], point.payload["tie"]
    context = point.payload.get("context", 0)
    # A memory takes its life along: one that it does not know of yet must not be lost.
    mine = (HasId(point.id), *(() if point.payload["kind"] != MEMORY else (_known_life(point),)))
    same = (*mine, Is("precedence", precedence), Is("tie", tie))
    return (
        Every((*mine, Below("precedence", precedence))),
        Every((*mine, Is("precedence", precedence), Below("tie", tie))),
        Every((*same, AtMost("context", context))),
        # A tombstone, or a point from before there were contexts.
        Every((*same, Not(Present("context")))),
    )


def _known_life(point: Point) -> Condition:
    return Some((Not(Present("life")), AtMost("life", point.payload.get("life", 0))))
