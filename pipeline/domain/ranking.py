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
from typing import Any, Final, Literal

import regex

from pipeline.domain.lexical import folded, is_spaceless
from pipeline.domain.periods import Period
from pipeline.domain.tiers import Standing, Tiers, strength_at
from pipeline.domain.weights import Weights
from schemas.search import Hit

Signal = Literal["dense", "lexical", "tokens", "topics"]
"""What the index gives: cosine of the meanings, BM25, the mean of each token's, or topic's, best match."""
SIGNALS: Final = (
    "dense",
    "lexical",
    "tokens",
    "topics",
    "speaker",
    "time",
    "ago",
    "importance",
    "use",
    "recency",
)
"""Everything that may speak for a memory, each by the weight of its name."""

DEPTH: Final = 100
"""Candidates by meaning, and as many by words: nearly all that could be a hit."""
_MAY_BE_NOBODYS: Final = {"speaker", "use", "time", "ago"}
"""Signals that a question, or all candidates, may be without: then nobody's score lacks them."""
_DAY_S: Final = 86_400.0
_NAMES: Final = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LEAST_NAME_CHARS: Final = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that may answer, and what the index says for it; what is missing is none.

    There are some hundreds of them for ten hits, so only what is told is made a Hit of, and checked.
    """

    memory: Mapping[str, Any]
    """The fields of a KnownMemory."""
    importance: float
    """0 to 1, by the classifier."""
    signals: Mapping[Signal, float]
    stood: Standing | None = None
    """When it was recalled last; None where it never was."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a question says beside its vectors."""

    words: Collection[str]
    """Its words, as they are compared."""
    periods: Sequence[Period]
    now: datetime
    """By the asker's clock."""


def words_of(text: str) -> Collection[str]:
    """The distinct words of a text, as they are compared."""
    return frozenset(_NAMES.findall(folded(text)))


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
    speakers = {each.memory["speaker"] for each in candidates}
    asked_for = {speaker for speaker in speakers if named(speaker, heard.words)}
    given = [signals(each, heard, asked_for, weights, tiers or Tiers()) for each in candidates]
    counted = [(name, weight) for name in SIGNALS if (weight := getattr(weights, name))]
    whole = _whole(given, counted)
    told = [
        (round(sum(weight * own.get(name, 0.0) for name, weight in counted) / whole, 6), at)
        for at, own in enumerate(given)
    ]
    told.sort(key=lambda one: (-one[0], candidates[one[1]].memory["memory_id"]))
    return [
        _hit(candidates[at], total, _explained(given[at], counted, whole) if explain else {})
        for total, at in told[:limit]
        if min_score is None or total >= min_score
    ]


def signals(
    candidate: Candidate,
    heard: Heard,
    asked_for: Collection[str | None],
    weights: Weights,
    tiers: Tiers,
) -> dict[str, float]:
    """Everything that speaks for the candidate, 0 to 1 each; a cosine from -1."""
    occurred_at: datetime = candidate.memory["occurred_at"]
    age_days = max((heard.now - occurred_at).total_seconds() / _DAY_S, 0.0)
    return {
        **candidate.signals,
        "speaker": float(candidate.memory["speaker"] in asked_for),
        "time": float(_holds(occurred_at, heard.periods, ago=False)),
        "ago": float(_holds(occurred_at, heard.periods, ago=True)),
        "importance": candidate.importance,
        "use": strength_at(candidate.stood, heard.now, tiers),
        "recency": 0.5 ** (age_days / weights.half_life_days),
    }


def _holds(moment: datetime, periods: Sequence[Period], *, ago: bool) -> bool:
    return any(each.holds(moment) for each in periods if each.ago == ago)


def named(speaker: str | None, words: Collection[str]) -> bool:
    """Whether the words name the speaker, by any part of the name."""
    parts = [part for part in words_of(speaker or "") if len(part) >= _LEAST_NAME_CHARS]
    return any(part in words or _is_within(part, words) for part in parts)


def _is_within(part: str, words: Collection[str]) -> bool:
    """Whether it is a part of a word, where words are whole sentences."""
    return is_spaceless(part) and any(part in word for word in words)


def _whole(given: Sequence[Mapping[str, float]], counted: Sequence[tuple[str, float]]) -> float:
    """What a memory would score that everything speaks for, that the question can be matched by."""
    usable = {name for own in given for name in own if name not in _MAY_BE_NOBODYS}
    usable |= {name for name in _MAY_BE_NOBODYS if any(own[name] for own in given)}
    return sum(weight for name, weight in counted if name in usable) or 1.0


def _explained(
    given: Mapping[str, float], counted: Sequence[tuple[str, float]], whole: float
) -> dict[str, Mapping[str, float]]:
    """What each signal gave, and its part of the score: the parts add up to it."""
    parts = {name: round(weight * given.get(name, 0.0) / whole, 6) for name, weight in counted}
    return {
        "signals": {name: round(value, 6) for name, value in given.items()},
        "parts": {name: part for name, part in parts.items() if part},
    }


def _hit(candidate: Candidate, total: float, told: Mapping[str, Any]) -> Hit:
    return Hit(**candidate.memory, score=max(-1.0, min(1.0, total)), **told)
