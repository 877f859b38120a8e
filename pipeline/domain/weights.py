"""How much each signal of a search counts."""

from dataclasses import dataclass, fields, replace
from math import isfinite

ALWAYS_TELLING = ("dense", "lexical", "tokens", "topics", "importance", "use", "recency")
"""The signals that order memories whatever is asked; only some questions name a speaker or a time."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal counts; 0 switches it off."""

    dense: float = 0.4
    lexical: float = 0.4
    tokens: float = 0.4
    topics: float = 0.0
    """That the memory's topics lie close to the question's, both by the classifier."""
    speaker: float = 0.1
    """That the question names who said it."""
    time: float = 0.125
    """That it happened when the question says: "in May 2023", "today". A date is matched by words, too."""
    ago: float = 0.5
    """That it happened as long ago as the question says: "yesterday", "last week"."""
    importance: float = 0.0
    use: float = 0.0
    """That it was recalled before: how strong it is in the moment of the question."""
    recency: float = 0.0
    half_life_days: float = 30.0
    """Of recency: after so many days it counts half."""

    def without_classifiers(self) -> "Weights":
        """The same, but what a classifier says counts nothing."""
        return replace(self, topics=0.0, importance=0.0)

    @property
    def ranks(self) -> bool:
        """Whether any question can be answered better by one memory than by another."""
        return any(getattr(self, name) for name in ALWAYS_TELLING)

    def __post_init__(self) -> None:
        given = [getattr(self, field.name) for field in fields(self)]
        if not all(isfinite(weight) and weight >= 0 for weight in given) or not self.half_life_days:
            raise ValueError("weights are 0 or more, and the half-life is more than 0")
