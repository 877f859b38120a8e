"""What was believed at a moment: the memories that are as they were then, and the states of those that changed.

The index keeps the newest state of each memory alone. A memory that has not changed since is in it as it
was. The states that others had then come from the record's audit trail and are asked beside the index, in
the same words and against the same rarity of words, so that both can be ranked together. What was
forgotten is gone from the audit trail too, and so from every past. Lives have no past: how a memory stands
by its use, and whether it is put away, is told as it is today, of both kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final
from uuid import UUID

import numpy as np
from pydantic_core import to_json

from pipeline.aside import aside, in_slices
from pipeline.domain.identity import memory_key, user_key
from pipeline.domain.lexical import lexical_vector
from pipeline.ports import Past, PastState
from pipeline.stores.conditions import AtMost, Every
from pipeline.stores.lives_in_points import lived_payload
from pipeline.stores.payloads import held, said_payload, understood_payload, watermark
from pipeline.stores.points import Found, Nearest, Payload, Point, PointVectors
from pipeline.stores.points_in_memory import PointsInMemory
from schemas.events import (
    MemoryCaptured,
    MemoryClassified,
    MemoryState,
    MemoryTiered,
    SparseVector,
)

MOST_WEIGHED: Final = 64
"""Words of one question whose rarity the index is asked for, a request each; others count as these usually do."""


@dataclass(frozen=True)
class Then:
    """What is asked beside the index: the points of the states of then."""

    version: int
    points: Mapping[UUID, Point]

    def unchanged(self, where: Every) -> Every:
        """What meets `where` and is as it was."""
        return Every((*where.conditions, AtMost("version", self.version)))

    def said(self, terms: SparseVector) -> Sequence[int]:
        """Those of `terms` that a state has: nobody has to know how rare the others are."""
        own = {term for point in self.points.values() for term in _terms(point)}
        return [term for term in terms.indices if term in own]

    async def ask(
        self, requests: Sequence[Nearest], where: Every, rarity: Mapping[int, float]
    ) -> Sequence[Sequence[Found]]:
        """Asks the states as an engine is asked."""
        there = PointsInMemory(dict(self.points), rarity)
        return await aside(lambda: there.answer(requests, where))


def marks_of(past: Past) -> Sequence[UUID]:
    """The points that tell whether a state of then is forgotten: its memory's, and its user's."""
    states = [each.state for each in past.states]
    users = {user_key(state.user_id) for state in states}
    return [*users, *(memory_key(state.user_id, state.memory_id) for state in states)]


async def then(past: Past, there: Mapping[UUID, Payload]) -> Then:
    """The points of the past, without what the index knows to be forgotten, from `marks_of`.

    It may hear of a forgetting before the record does.
    """
    left = [each for each in past.states if not _is_gone(each.state, there)]
    points = await in_slices(
        lambda some: [_point(each) for each in some], left, lambda each: chars_of(each.state)
    )
    return Then(past.version, {point.id: point for point in points})


def _is_gone(state: MemoryClassified, there: Mapping[UUID, Payload]) -> bool:
    own = there.get(memory_key(state.user_id, state.memory_id))
    mark = there.get(user_key(state.user_id))
    if mark is not None and watermark(mark).version >= state.version:
        return True
    return own is not None and held(own).forgotten and own["version"] >= state.version


def chars_of(state: MemoryState) -> int:
    """How much there is to do with a state: its text's length, and its metadata's as JSON."""
    return len(state.text) + len(to_json(state.metadata))


def past_payload(
    state: MemoryCaptured | MemoryClassified, newest: int, told: MemoryTiered | None
) -> Payload:
    """What a state of then is found and told by: what was said then, and the memory's life of today.

    Without the UNDERSTOOD_FIELDS where nobody has said yet what it is about.
    """
    own = understood_payload(state) if isinstance(state, MemoryClassified) else said_payload(state)
    return own | (lived_payload(told, newest) if told else {})


def _point(past: PastState) -> Point:
    """The point that the index would hold. What was said before it is not kept with a past state."""
    state, own = past.state, past.embedding
    topics = np.array(past.topics, np.float32).reshape(len(past.topics), len(own.text))
    vectors = PointVectors(own.text, own.tokens, topics, lexical_vector(state))
    payload = past_payload(state, past.newest, past.told)
    return Point(memory_key(state.user_id, state.memory_id), payload, vectors)


def _terms(point: Point) -> Sequence[int]:
    return point.vectors.bm25.indices if point.vectors else ()


def of_each_term(terms: Sequence[int]) -> Sequence[Nearest]:
    """What to ask an index so that `rarity_in` can tell how rare it holds each term to be."""
    return [
        Nearest("bm25", SparseVector(indices=(term,), values=(1.0,)), 1, with_terms=True)
        for term in terms[:MOST_WEIGHED]
    ]


def rarity_in(terms: Sequence[int], found: Sequence[Sequence[Found]]) -> Mapping[int, float]:
    """The IDF of each term: what a memory scored by it, without the memory's own part of that.

    A word that no memory has any more counts as the rarest does, and one that was not asked for as most do.
    """
    asked, others = terms[:MOST_WEIGHED], terms[MOST_WEIGHED:]
    known: dict[int, float] = {}
    for term, told in zip(asked, found, strict=True):
        for one in told:
            own = dict(zip(one.terms.indices, one.terms.values, strict=True)) if one.terms else {}
            if own.get(term):
                known[term] = one.score / own[term]
    rarest = max(known.values(), default=1.0)
    rarity = {term: known.get(term, rarest) for term in asked}
    return rarity | dict.fromkeys(others, median(rarity.values()) if rarity else rarest)


def together(
    index: Sequence[Sequence[Found]], past: Sequence[Sequence[Found]], requests: Sequence[Nearest]
) -> Sequence[Sequence[Found]]:
    """What both have found for each request, best first. The index may lag: a state is told once."""
    return [
        _once([*of_index, *of_past])[: request.limit]
        # The index was asked for more: how rare words are.
        for of_index, of_past, request in zip(index, past, requests, strict=False)
    ]


def _once(found: Sequence[Found]) -> list[Found]:
    by_id: dict[UUID, Found] = {one.id: one for one in reversed(found)}
    return sorted(by_id.values(), key=lambda one: -one.score)
