"""Events in, points out; a question in, conditions out; what was found in, hits out. All of it pure.

Every index engine is written to and asked in these words, so that no two can drift apart. An engine only
translates: conditions to its own filters, arrays to its own vectors. What decides who may see which
memory is said once, in `of_user`: no condition for a search can be built without it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.identity import content_hash, generation_key, memory_key, user_key
from pipeline.domain.ranking import Candidate, Signal
from pipeline.domain.tiers import Standing, archived_until, is_archived, tier_at
from pipeline.domain.versions import Known, Stamp
from pipeline.errors import Unusable
from pipeline.ports import TOKEN_DIMENSIONS, Fingerprint, Floats, Halves, Question
from pipeline.stores.conditions import (
    ARCHIVED,
    AnyOf,
    AtMost,
    Below,
    Condition,
    Every,
    HasId,
    Is,
    Not,
    Present,
    Some,
    holds,
    metadata_numbers,
    metadata_terms,
    narrowed,
)
from pipeline.stores.states import Erased, State, Watermark, known_of, named_user
from schemas.events import (
    MemoryEnriched,
    MemoryState,
    MemoryTiered,
    SparseVector,
    Tier,
    UnderstoodState,
    UserForgotten,
    Vectors,
)
from schemas.search import Hit, KnownMemory, SearchFilter

_GREATEST_FLOAT32 = float(np.finfo(np.float32).max)
PAGE = 512
"""Points read at once."""

Payload = dict[str, Any]

MEMORY, FORGOTTEN, USER_FORGOTTEN = "memory", "forgotten", "user_forgotten"
GENERATION = "generation"
"""What a point is: a memory, its tombstone, the watermark of a user, or a user's generation. Words, because Qdrant Edge reads a
match with a boolean as a match with an integer."""

_OLDEST = -(2**53)

_FINDING: Sequence[Signal] = ("dense", "lexical")
"""What finds memories; the other signals only place what these have found."""

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

    def suffices(self, found: Sequence[Found]) -> bool:
        """Whether what was found among the keys of `first` is all that there is to find."""
        beyond = self.first.beyond if self.first else -math.inf
        return len(found) == self.limit and found[-1].score > beyond + _ROUNDING


@dataclass(frozen=True, slots=True)
class Amendment:
    """Fields to set in the payload of one point, if it meets `where`."""

    payload: Payload
    where: Every


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
"""The same, and the watermarks."""


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


def with_life(point: Point, there: Payload | None) -> Point:
    """The point with the life of the memory that is `there`, if that is alive as this one is.

    One that is remembered anew knows up to where it was forgotten: a life of before is not its own.
    """
    if there is None or point.payload["kind"] != MEMORY:
        return point
    if there["kind"] != MEMORY:
        until = held(there).stamp.precedence
        return replace(point, payload=point.payload | {"forgotten_until": until})
    kept = {name: there[name] for name in ("forgotten_until", *LIFE_FIELDS) if name in there}
    if "life" in kept:
        kept["tier"] = _tier(kept, point.payload["precedence"])
    return replace(point, payload=point.payload | kept)


def amendment(told: MemoryTiered, key: UUID, there: Payload) -> Amendment:
    """What a tiering changes of the memory that is `there`, unless that has changed meanwhile."""
    life = lived_payload(told, there["precedence"])
    same = (Is(name, there[name]) for name in ("user_id", "kind", "precedence", "tie"))
    older = Some((Not(Present("life")), Below("life", told.version)))
    return Amendment(life, Every((HasId(key), *same, older)))


def lived_payload(told: MemoryTiered, precedence: int) -> Payload:
    """The LIFE_FIELDS of a memory whose newest state has this precedence."""
    life: Payload = {
        "life": told.version,
        "strength": told.strength,
        "recalled_at": _written(told.recalled_at),
        "medium_until": _written(told.medium_until),
        "long_until": _written(told.long_until),
        "archived_version": told.archived_version,
        "archived_precedence": archived_until(told),
        "consolidated": list(told.consolidated),
    }
    return life | {"tier": _tier(life, precedence)}


def unheard_of(
    told: Sequence[MemoryTiered], there: Mapping[UUID, Payload]
) -> Mapping[UUID, MemoryTiered]:
    """By memory key the newest tiering that the memory which is `there` has not heard of.

    `there` are the points of the memories and the watermarks of their users.
    """
    newest: dict[UUID, MemoryTiered] = {}
    for each in sorted(told, key=lambda each: each.version):
        key = memory_key(each.user_id, each.memory_id)
        mark = there.get(user_key(each.user_id))
        if _is_older_life(there.get(key), each) and not _is_of_another(there[key], mark, each):
            newest[key] = each
    return newest


def _is_older_life(there: Payload | None, told: MemoryTiered) -> bool:
    """Whether `there` is a living memory that has not heard of this tiering, nor of a newer one."""
    return there is not None and there["kind"] == MEMORY and there.get("life", 0) < told.version


def _is_of_another(there: Payload, mark: Payload | None, told: MemoryTiered) -> bool:
    """Whether the tiering is of the memory that was forgotten before this one came under its id."""
    until = there.get("forgotten_until")
    if told.of_precedence is None:
        # Nothing says whose it is.
        return until is not None
    went_with_user = mark is not None and abs(told.of_precedence) <= watermark(mark).version
    return went_with_user or (until is not None and told.of_precedence <= until)


def hides(there: Payload, told: MemoryTiered) -> bool:
    """Whether a tiering that is unheard of changes what a search may find: the memory is put away, or back."""
    archived = is_archived(archived_until(told), there["precedence"])
    return archived != (there.get("tier") == ARCHIVED)


def _tier(life: Payload, precedence: int) -> Tier:
    # A life from before there were precedences in it.
    until = life.get("archived_precedence", life.get("archived_version"))
    if is_archived(until, precedence):
        return ARCHIVED
    stood = standing_of(life)
    return stood.tier if stood else "short"


def standing_of(payload: Payload) -> Standing | None:
    """Where the memory stood when it was recalled last; None where it never was."""
    recalled_at = _read(payload.get("recalled_at"))
    if recalled_at is None:
        return None
    ends = (_read(payload.get("medium_until")), _read(payload.get("long_until")))
    return Standing(tier_at(*ends, recalled_at), payload["strength"], recalled_at)


def _written(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") if moment else None


def _read(moment: str | None) -> datetime | None:
    return datetime.fromisoformat(moment) if moment else None


def memory_point(event: MemoryEnriched, shape: IndexShape) -> Point:
    """The point of a memory. Raises Unusable where its vectors do not fit the index."""
    told = {
        "content_hash": content_hash(event),
        "model": event.model,
        "context": event.context,
    }
    payload = _state(event) | understood_payload(event) | told
    key = memory_key(event.user_id, event.memory_id)
    return Point(key, payload, fitting_vectors(event, shape))


UNDERSTOOD_FIELDS = ("domain", "topics", "importance")
"""What a classifier says of a memory."""


def understood_payload(event: UnderstoodState) -> Payload:
    """What a memory is found and told by, beside its vectors."""
    return said_payload(event) | {
        "domain": event.domain,
        "topics": list(event.topics),
        "importance": event.importance,
    }


def said_payload(event: MemoryState) -> Payload:
    """The part of it that needs no classifier."""
    said = {
        "speaker": event.speaker,
        "agent_id": event.agent_id,
        "app_id": event.app_id,
        "run_id": event.run_id,
    }
    return {
        "kind": MEMORY,
        "user_id": event.user_id,
        "memory_id": event.memory_id,
        "version": event.version,
        "text": event.text,
        "occurred_at": event.occurred_at.isoformat(timespec="microseconds"),
        "metadata": event.metadata,
        "metadata_terms": metadata_terms(event.metadata),
        "metadata_numbers": metadata_numbers(event.metadata),
        **{name: value for name, value in said.items() if value is not None},
    }


def point(state: State, shape: IndexShape) -> Point:
    """The point of any state. Raises Unusable where vectors do not fit the index."""
    if isinstance(state, MemoryEnriched):
        return memory_point(state, shape)
    key = memory_key(state.user_id, state.memory_id)
    return Point(key, _state(state) | {"kind": FORGOTTEN}, None)


def _state(state: State) -> Payload:
    known = known_of(state)
    event = state.by if isinstance(state, Erased) else state
    return {
        "user_id": state.user_id,
        "memory_id": state.memory_id,
        "event_id": str(event.event_id),
        "precedence": known.stamp.precedence,
        "tie": known.stamp.tie,
        "version": known.stamp.version,
        "published_at": event.published_at.isoformat(timespec="microseconds"),
    }


def watermark_point(forgetting: UserForgotten) -> Point:
    """The point that tells of a user's forgetting."""
    return Point(
        user_key(forgetting.user_id),
        {
            "kind": USER_FORGOTTEN,
            "user_id": forgetting.user_id,
            "event_id": str(forgetting.event_id),
            "precedence": forgetting.version,
            "tie": 0,
            "version": forgetting.version,
            "published_at": forgetting.published_at.isoformat(timespec="microseconds"),
        },
        None,
    )


def generation_point(user_id: str, fresh: UUID) -> Point:
    """The point that keeps a user's generation. It does not say whose it is, nothing finds it by that."""
    # The same place in the order for all of them: the guard of a write lets each replace each.
    payload = {"kind": GENERATION, "event_id": str(fresh), "precedence": 0, "tie": 0}
    return Point(generation_key(user_id), payload, None)


def generation(payload: Payload) -> UUID:
    """What such a point keeps."""
    return UUID(payload["event_id"])


def known_memory(user_id: str, payload: Payload, now: datetime) -> KnownMemory | None:
    """The memory that a point holds; None where it was forgotten, or is another user's."""
    if payload.get("kind") != MEMORY or payload["user_id"] != user_id:
        return None
    return KnownMemory(**_known_fields(payload, now))


def held(payload: Payload) -> Known:
    """What a point of a memory says of it."""
    # What was altered by hand may lack a number: then anything of ours is newer.
    stamp = Stamp(payload.get("precedence", _OLDEST), payload.get("tie", 0))
    return Known(stamp, payload["kind"] != MEMORY, payload.get("context", 0))


def watermark(payload: Payload) -> Watermark:
    """What the point of a user's forgetting says."""
    return Watermark(
        payload["version"],
        UUID(payload["event_id"]),
        datetime.fromisoformat(payload["published_at"]),
    )


def fingerprint(id: UUID, payload: Payload) -> Fingerprint:
    """What `verify` compares."""
    told = payload.get("content_hash", "")
    life = payload.get("life", 0) if payload["kind"] == MEMORY else 0
    return Fingerprint(id, held(payload), told, payload["kind"] == USER_FORGOTTEN, life)


def hit(found: Found, now: datetime) -> Hit:
    """What the asker is told of the closest by meaning."""
    return Hit(**_known_fields(found.payload, now), score=rounded(found.score))


def closest_of(
    found: Mapping[Signal, Sequence[Found]], depth: int
) -> Mapping[Signal, Sequence[Found]]:
    """The `depth` closest by meaning, and by words; of those alike the first by their ids."""
    return {
        signal: _closest(told, depth) if signal in _FINDING else told
        for signal, told in found.items()
    }


def _closest(told: Sequence[Found], depth: int) -> Sequence[Found]:
    order = sorted(told, key=lambda one: (-alike(one.score), one.payload["memory_id"]))
    return order[:depth]


def candidates(
    question: Question, found: Mapping[Signal, Sequence[Found]], depth: int, now: datetime
) -> Sequence[Candidate]:
    """What was found, by memory, with what each signal gave on a scale of its own: 0 to 1.

    A memory that is not among the closest by meaning is less close than all of them: the least close one
    stands for it.
    """
    payloads = {one.id: one.payload for told in found.values() for one in told if one.payload}
    given: dict[UUID, dict[Signal, float]] = {key: {} for key in payloads}
    for signal, told in found.items():
        scale = _scale(signal, question, told)
        for one in told:
            # A point may have been written between two requests of one question.
            if one.id in given:
                given[one.id][signal] = rounded(one.score / scale)
    close = found.get("dense", ())
    if len(close) >= depth:
        for signals in given.values():
            signals.setdefault("dense", rounded(close[-1].score))
    return [
        Candidate(
            memory=_known_fields(payload, now),
            importance=payload.get("importance", 0.0),
            signals=given[key],
            stood=standing_of(payload),
        )
        for key, payload in payloads.items()
    ]


def _scale(signal: Signal, question: Question, told: Sequence[Found]) -> float:
    """What a full match scores: as many tokens as the question has, or the best of all by words."""
    match signal:
        case "tokens":
            return max(len(question.embedding.tokens), 1)
        case "topics":
            return 1.0 if question.topics is None else max(len(question.topics), 1)
        case "lexical":
            return max((one.score for one in told), default=0.0) or 1.0
        case "dense":
            return 1.0


def _known_fields(payload: Payload, now: datetime) -> dict[str, Any]:
    ends = (_read(payload.get("medium_until")), _read(payload.get("long_until")))
    archived = payload.get("tier") == ARCHIVED
    return {
        "memory_id": payload["memory_id"],
        "text": payload["text"],
        "occurred_at": datetime.fromisoformat(payload["occurred_at"]),
        "speaker": payload.get("speaker"),
        "agent_id": payload.get("agent_id"),
        "app_id": payload.get("app_id"),
        "run_id": payload.get("run_id"),
        "domain": payload["domain"],
        "topics": tuple(payload["topics"]),
        "metadata": payload["metadata"],
        "version": payload["version"],
        "tier": ARCHIVED if archived else tier_at(*ends, now),
        "consolidated": tuple(payload.get("consolidated") or ()),
    }


def alike(score: float) -> float:
    """The same number for scores that differ by an engine's arithmetic alone; cosines and BM25."""
    return float(f"{score:.6g}")


def rounded(score: float) -> float:
    """A cosine as far as float32 arithmetic agrees on it across engines: six decimals."""
    return max(-1.0, min(1.0, round(score, 6)))


def fitting_vectors(event: MemoryEnriched, shape: IndexShape) -> PointVectors:
    """The event's vectors, checked. Raises Unusable.

    Checked before any engine sees them: Qdrant Edge takes NaN for good, and keeps a point that it
    refused in its log, where it comes back.
    """
    if event.model != shape.model:
        raise Unusable(
            f"The vectors are by the model {event.model!r}, this index holds those of "
            f"{shape.model!r}: embed the memory again."
        )
    text = matrix(event.text_vector, shape.dimensions, "text_vector").astype(np.float32)
    if len(text) != 1:
        raise Unusable(f"text_vector has {len(text)} rows, not 1.")
    tokens = matrix(event.token_vectors, TOKEN_DIMENSIONS, "token_vectors")
    topics = matrix(event.topic_vectors, shape.dimensions, "topic_vectors")
    _check_terms(event.lexical_vector)
    return PointVectors(
        text[0], tokens.astype(np.float16), topics.astype(np.float32), event.lexical_vector
    )


def matrix(vectors: Vectors, width: int, name: str) -> NDArray[np.floating]:
    """`vectors` as rows of `width` finite numbers. Raises Unusable."""
    count, columns = vectors.shape
    if count and columns != width:
        raise Unusable(f"{name} has {columns} dimensions, this index has {width}.")
    # Without rows the columns may be any number, more than there can be too.
    dtype = "<f4" if vectors.dtype == "float32" else "<f2"
    rows = np.frombuffer(vectors.data, dtype).reshape(count, width)
    # Beyond what half floats can hold they would turn infinite in the index.
    if not (np.abs(rows) <= np.finfo(np.float16).max).all():
        raise Unusable(f"{name} holds a number that is not finite, or beyond 65504.")
    return rows


def _check_terms(terms: SparseVector) -> None:
    if len(set(terms.indices)) != len(terms.indices):
        raise Unusable("lexical_vector names a term twice.")
    if not all(abs(value) <= _GREATEST_FLOAT32 for value in terms.values):
        raise Unusable("lexical_vector holds a weight that is infinite as a float32.")


def fitting_question(text: Floats, shape: IndexShape) -> Floats:
    """A question's vector, checked. Raises Unusable."""
    if text.shape != (shape.dimensions,):
        raise Unusable(f"The question has shape {text.shape}, this index ({shape.dimensions},).")
    if not np.isfinite(text).all():
        raise Unusable("The question's vector holds a number that is not finite.")
    return text
