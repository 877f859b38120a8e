"""Candidates -> hits: what speaks for a memory, weighed together.

The index finds a user's memories by meaning and by words; a question's tokens place what both have found,
word by word. To that comes what no vector tells: whether the question names who said it, and when. Every
signal lies on a scale of its own that the other candidates do not change (words excepted: the best match
is 1), so that a score tells something by itself, and each may be left out by its weight.

The weights hold for conversations and for records of a phone alike; recall changes little around them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

import regex

from pipeline.domain.tiers import Standing, Tiers, strength_at
from pipeline.domain.times import Period
from pipeline.domain.weights import Weights
from schemas.search import Hit, KnownMemory

Signal = Literal["dense", "lexical", "tokens"]
"""What the index gives: cosine of the meanings, BM25, the mean of each token's best match."""

DEPTH: Final = 100
"""Candidates by meaning, and as many by words: nearly all that could be a hit."""
_DAY_S: Final = 86_400.0
_NAMES: Final = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LEAST_NAME_CHARS: Final = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that may answer, and what the index says for it; what is missing is none."""

    memory: KnownMemory
    importance: float
    """0 to 1, by the classifier."""
    signals: Mapping[Signal, float]
    stood: Standing | None = None
    """When it was recalled last; None where it never was."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a question says beside its vectors."""

    words: Collection[str]
    """Its words, casefolded."""
    periods: Sequence[Period]
    now: datetime
    """By the asker's clock."""


def words_of(text: str) -> Collection[str]:
    """The distinct words of a text, casefolded."""
    return frozenset(word.casefold() for word in _NAMES.findall(text))


def ranked(
    candidates: Sequence[Candidate],
    heard: Heard,
    weights: Weights,
    *,
    tiers: Tiers | None = None,
    limit: int,
    min_score: float | None = None,
    explain: bool = False,
) -> Sequence[Hit]:
    """The best first; equal scores in the order of their ids."""
    scored = [(each, signals(each, heard, tiers or Tiers())) for each in candidates]
    whole = _whole([given for _, given in scored], heard, weights)
    told = [(round(score(given, weights) / whole, 6), each, given) for each, given in scored]
    told.sort(key=lambda one: (-one[0], one[1].memory.memory_id))
    return [
        _hit(each, total, given if explain else {})
        for total, each, given in told[:limit]
        if min_score is None or total >= min_score
    ]


def signals(candidate: Candidate, heard: Heard, tiers: Tiers) -> Mapping[str, float]:
    """Everything that speaks for the candidate, 0 to 1 each; a cosine from -1."""
    memory = candidate.memory
    age_days = max((heard.now - memory.occurred_at).total_seconds() / _DAY_S, 0.0)
    return {
        **candidate.signals,
        "speaker": float(named(memory.speaker, heard.words)),
        "time": float(any(period.holds(memory.occurred_at) for period in heard.periods)),
        "importance": candidate.importance,
        "use": strength_at(candidate.stood, heard.now, tiers),
        "age_days": age_days,
    }


def named(speaker: str | None, words: Collection[str]) -> bool:
    """Whether the words name the speaker, by any part of the name."""
    parts = words_of(speaker or "")
    return any(part in words for part in parts if len(part) >= _LEAST_NAME_CHARS)


def score(given: Mapping[str, float], weights: Weights) -> float:
    """The signals of one candidate, weighed."""
    recency = 0.5 ** (given["age_days"] / weights.half_life_days)
    return weights.recency * recency + sum(
        getattr(weights, name) * given.get(name, 0.0)
        for name in ("dense", "lexical", "tokens", "speaker", "time", "importance", "use")
    )


def _whole(scored: Sequence[Mapping[str, float]], heard: Heard, weights: Weights) -> float:
    """What a memory would score that everything speaks for, that the question can be matched by."""
    found = [signal for signal in get_args(Signal) if any(signal in given for given in scored)]
    return (
        sum(getattr(weights, signal) for signal in found)
        + weights.speaker * any(given["speaker"] for given in scored)
        + weights.time * bool(heard.periods)
        + weights.use * any(given["use"] for given in scored)
        + weights.importance
        + weights.recency
    ) or 1.0


def _hit(candidate: Candidate, total: float, given: Mapping[str, float]) -> Hit:
    told = {name: round(value, 6) for name, value in given.items() if name != "age_days"}
    known = dict(candidate.memory)
    return Hit(**known, score=max(-1.0, min(1.0, total)), signals=told)
