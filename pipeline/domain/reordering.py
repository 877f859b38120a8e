"""Ranked hits -> the same hits in another order: as a cross-encoder reads them, too, or less alike.

Both are pure and keep each hit's score: what a score says, and `min_score` goes by, does not hang on what
is done to the order afterwards.

What a cross-encoder gives is weighed with what the ranking gave, for they err in different ways: the one
reads word against word, the other knows speakers, times and how rare a word is.

Diversity is maximal marginal relevance (Carbonell and Goldstein, 1998): again and again the memory is
taken that is good and unlike what was taken already. Alike is what shares its words. A memory's vector
would not tell: what was said just before is mixed into it, so that two turns of a conversation lie close
by whatever they say. Words ask nothing of the index, either.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from math import tanh
from typing import Final, NamedTuple

from pipeline.domain.lexical import lexical_terms
from schemas.search import Hit

POOL: Final = 50
"""The best, among which unlike ones are looked for. Those further down answer little."""

MOST_COMPARED: Final = 512
"""Words of one text: each of a hundred is compared with each of the others."""


class Placed(NamedTuple):
    """A hit, and how good it is on the scale of whatever gave the order; best first."""

    hit: Hit
    worth: float


def placed(hits: Sequence[Hit]) -> Sequence[Placed]:
    """The hits as they were ranked."""
    return [Placed(hit, hit.score) for hit in hits]


def reranked(
    ranking: Sequence[Placed], given: Sequence[float], weight: float, *, explain: bool
) -> list[Placed]:
    """What was read again, best first, then the others as they stood.

    `given` belongs to the first of `ranking`, on a scale of its own: greater is better. `weight`, 0 to 1,
    says how much it counts beside the ranking, once both are scaled to 0 to 1 over what was read. Equally
    good ones stay as they stood. Nothing that was not read is better than what was.
    """
    ranked = _scaled([one.worth for one in ranking[: len(given)]])
    read = [
        Placed(_told(one.hit, score) if explain else one.hit, (1 - weight) * before + weight * now)
        for one, score, before, now in zip(ranking, given, ranked, _scaled(given), strict=False)
    ]
    read.sort(key=lambda one: -one.worth)
    least = min((one.worth for one in read), default=0.0)
    return read + [Placed(one.hit, least) for one in ranking[len(given) :]]


def compared(hits: Sequence[Placed]) -> Sequence[AbstractSet[int]]:
    """By what each hit is compared with others: its words, of very many a fair part.

    The least of their hashes: of two texts with the same words those are the same (Broder, 1997).
    """
    return [frozenset(nsmallest(MOST_COMPARED, lexical_terms(one.hit.text))) for one in hits]


def diversified(
    ranking: Sequence[Placed], terms: Sequence[AbstractSet[int]], diversity: float, *, limit: int
) -> list[Placed]:
    """`limit` of them, all if there are fewer; `diversity` is 0 to 1, and 0 changes nothing.

    `terms` are what is `compared` of each.

    Against a hit's worth, scaled to 0 to 1 over all of them, stands how much it is like the one most like
    it that was taken already. Of equal ones the better is taken; the first stays first.
    """
    if not diversity:
        return list(ranking[:limit])
    gain = [(1 - diversity) * worth for worth in _scaled([one.worth for one in ranking])]
    likeness = [0.0] * len(ranking)
    left, taken = list(range(len(ranking))), list[Placed]()
    while left and len(taken) < limit:
        best = max(left, key=lambda place: gain[place] - diversity * likeness[place])
        left.remove(best)
        taken.append(ranking[best])
        for place in left:
            likeness[place] = max(likeness[place], alike(terms[place], terms[best]))
    return taken


def alike(one: AbstractSet[int], other: AbstractSet[int]) -> float:
    """What two sets share of what either has (Jaccard), 0 to 1; of two empty ones, 1."""
    shared = len(one & other)
    either = len(one) + len(other) - shared
    return shared / either if either else 1.0


def _scaled(worths: Sequence[float]) -> Sequence[float]:
    """The best is 1 and the last 0; where all are equal, all are 1."""
    least, most = min(worths, default=0.0), max(worths, default=0.0)
    return [(worth - least) / (most - least) if most > least else 1.0 for worth in worths]


def _told(hit: Hit, given: float) -> Hit:
    """On the scale of the other signals: the logistic function of what the model gave."""
    told = (1 + tanh(given / 2)) / 2
    return hit.model_copy(update={"signals": {**hit.signals, "rerank": told}})
