"""What an engine has found in, what is told of it out: hits, candidates, and the memory that a point holds."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pipeline.domain.ranking import Candidate, Signal
from pipeline.ports import Question
from pipeline.stores.lives_in_points import standing_of, tier_in
from pipeline.stores.points import MEMORY, Found, Payload
from schemas.search import Hit, KnownMemory

Way = Signal | Literal["dense_in_period", "lexical_in_period"]
"""By what a memory was found: by a signal, or by it among what happened when the question says."""
_SIGNAL_OF: Mapping[Way, Signal] = {
    "dense": "dense",
    "dense_in_period": "dense",
    "lexical": "lexical",
    "lexical_in_period": "lexical",
    "tokens": "tokens",
    "topics": "topics",
}
_FINDING: Sequence[Way] = ("dense", "lexical", "dense_in_period", "lexical_in_period")
"""What finds memories; the other signals only place what these have found."""


def known_memory(user_id: str, payload: Payload, now: datetime) -> KnownMemory | None:
    """The memory that a point holds; None where it was forgotten, or is another user's."""
    if payload.get("kind") != MEMORY or payload["user_id"] != user_id:
        return None
    return KnownMemory(**_known_fields(payload, now))


def hit(found: Found, now: datetime) -> Hit:
    """What the asker is told of the closest by meaning."""
    return Hit(**_known_fields(found.payload, now), score=rounded(found.score))


def closest_of(found: Mapping[Way, Sequence[Found]], depth: int) -> Mapping[Way, Sequence[Found]]:
    """The `depth` closest by meaning, and by words; of those alike the first by their ids."""
    return {way: _closest(told, depth) if way in _FINDING else told for way, told in found.items()}


def _closest(told: Sequence[Found], depth: int) -> Sequence[Found]:
    order = sorted(told, key=lambda one: (-alike(one.score), one.payload["memory_id"]))
    return order[:depth]


def candidates(
    question: Question, found: Mapping[Way, Sequence[Found]], depth: int, now: datetime
) -> Sequence[Candidate]:
    """What was found, by memory, with what each signal gave on a scale of its own: 0 to 1.

    A memory that is not among the closest by meaning is less close than all of them: the least close one
    stands for it, of whichever way it was found, for of most nobody knows how close they are.
    """
    payloads = {one.id: one.payload for told in found.values() for one in told if one.payload}
    given: dict[UUID, dict[Signal, float]] = {key: {} for key in payloads}
    for way, told in found.items():
        signal = _SIGNAL_OF[way]
        scale = _scale(signal, question, found.get(signal, ()))
        for one in told:
            # A point may have been written between two requests of one question.
            if one.id in given:
                given[one.id][signal] = rounded(one.score / scale)
    close = found.get("dense", ())
    if len(close) >= depth:
        least = rounded(close[-1].score)
        for signals in given.values():
            signals["dense"] = max(signals.get("dense", least), least)
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
        "tier": tier_in(payload, now),
        "consolidated": tuple(payload.get("consolidated") or ()),
    }


def alike(score: float) -> float:
    """The same number for scores that differ by an engine's arithmetic alone; cosines and BM25."""
    return float(f"{score:.6g}")


def rounded(score: float) -> float:
    """A cosine, or a share of a full match, as far as float32 agrees on it across engines: six decimals."""
    return max(-1.0, min(1.0, round(score, 6)))
