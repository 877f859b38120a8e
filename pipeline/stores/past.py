"""What was believed at a moment: the memories that are as they were then, and the states of those that changed.

The index keeps the newest state of each memory alone. A memory that has not changed since is in it as it
was. The states that others had then come from the record's audit trail and are asked beside the index, in
the same words and against the same rarity of words, so that both can be ranked together. What was
forgotten is gone from the audit trail too, and so from every past.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np

from pipeline.domain.identity import memory_key
from pipeline.domain.lexical import lexical_vector
from pipeline.ports import Past, PastState
from pipeline.stores.conditions import AtMost, Every
from pipeline.stores.points import Found, Nearest, Point, PointVectors, understood_payload
from pipeline.stores.points_in_memory import PointsInMemory
from schemas.events import SparseVector


def unchanged(where: Every, past: Past) -> Every:
    """What meets `where` and is as it was."""
    return Every((*where.conditions, AtMost("version", past.version)))


async def ask_past(
    past: Past, requests: Sequence[Nearest], where: Every, rarity: Mapping[int, float]
) -> Sequence[Sequence[Found]]:
    """Asks the states of then as an engine is asked."""
    points = {point.id: point for point in map(_point, past.states)}
    return await PointsInMemory(points, rarity).ask(requests, where)


def _point(past: PastState) -> Point:
    """The point that the index would hold. What was said before it is not kept with a past state."""
    state, own = past.state, past.embedding
    topics = np.array(past.topics, np.float32).reshape(len(past.topics), len(own.text))
    vectors = PointVectors(own.text, own.tokens, topics, lexical_vector(state))
    return Point(memory_key(state.user_id, state.memory_id), understood_payload(state), vectors)


def of_each_term(terms: SparseVector) -> Sequence[Nearest]:
    """What to ask an index so that `rarity_in` can tell how rare it holds each term to be."""
    return [
        Nearest("bm25", SparseVector(indices=(term,), values=(1.0,)), 1, with_terms=True)
        for term in terms.indices
    ]


def rarity_in(terms: SparseVector, found: Sequence[Sequence[Found]]) -> Mapping[int, float]:
    """The IDF of each term: what a memory scored by it, without the memory's own part of that.

    A word that no memory has any more counts as the rarest does.
    """
    known: dict[int, float] = {}
    for term, told in zip(terms.indices, found, strict=True):
        for one in told:
            own = dict(zip(one.terms.indices, one.terms.values, strict=True)) if one.terms else {}
            if own.get(term):
                known[term] = one.score / own[term]
    rarest = max(known.values(), default=1.0)
    return {term: known.get(term, rarest) for term in terms.indices}


def together(
    index: Sequence[Sequence[Found]], past: Sequence[Sequence[Found]], requests: Sequence[Nearest]
) -> Sequence[Sequence[Found]]:
    """What both have found for each request, best first. The index may lag: a state is told once."""
    return [
        _once([*of_index, *of_past])[: request.limit]
        for of_index, of_past, request in zip(index, past, requests, strict=True)
    ]


def _once(found: Sequence[Found]) -> list[Found]:
    by_id: dict[UUID, Found] = {one.id: one for one in reversed(found)}
    return sorted(by_id.values(), key=lambda one: -one.score)
