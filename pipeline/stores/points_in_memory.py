"""Points in a dict, asked in the words of every engine: for tests, and for the few that are in no index."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import numpy as np

from pipeline.ports import Floats
from pipeline.stores.conditions import Condition, Every, holds
from pipeline.stores.points import (
    PAGE,
    Amendment,
    Found,
    Nearest,
    Payload,
    Point,
    PointVectors,
    replaceable,
)
from schemas.events import SparseVector

_VECTORS = 4
"""Read at once: few, so that a test has pages."""


@dataclass
class PointsInMemory:
    """Points in a dict, searched one by one."""

    _points: dict[UUID, Point] = field(default_factory=dict[UUID, Point], repr=False)
    rarity: Mapping[int, float] | None = None
    """The IDF of each term, where another index is to say how rare it is; else these points do."""

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        return {key: self._points[key].payload for key in ids if key in self._points}

    async def read(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        return await self.fetch(ids)

    async def put(self, points: Sequence[Point]) -> None:
        for point in points:
            there = self._points.get(point.id)
            if there is None or holds(replaceable([point]), there.id, there.payload):
                self._points[point.id] = point

    async def amend(self, amendments: Sequence[Amendment]) -> None:
        for amendment in amendments:
            for point in [
                p for p in self._points.values() if holds(amendment.where, p.id, p.payload)
            ]:
                amended = replace(point, payload=point.payload | amendment.payload)
                self._points[point.id] = amended

    async def settle(self) -> None:
        pass

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        return self.answer(requests, where)

    def answer(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        met = [point for point in self._points.values() if holds(where, point.id, point.payload)]
        return [
            [
                Found(
                    point.id,
                    {} if request.among else point.payload,
                    score,
                    point.vectors.bm25 if request.with_terms and point.vectors else None,
                )
                for point, score in self._nearest(request, met)
            ]
            for request in requests
        ]

    def _nearest(self, request: Nearest, met: Sequence[Point]) -> Sequence[tuple[Point, float]]:
        met = [point for point in met if holds(request.within, point.id, point.payload)]
        if request.among:
            among = [self._nearest(each, met) for each in request.among]
            met = list({point.id: point for found in among for point, _ in found}.values())
        if request.first:
            found = self._best(request, [point for point in met if point.id in request.first.keys])
            if request.suffices([Found(point.id, {}, score) for point, score in found]):
                return found
        return self._best(request, met)

    def _best(self, request: Nearest, met: Sequence[Point]) -> Sequence[tuple[Point, float]]:
        rarity = (self.rarity or self._rarity()) if request.using == "bm25" else {}
        scored = [(point, _score(request, point.vectors, rarity)) for point in met if point.vectors]
        found = [(point, score) for point, score in scored if score is not None]
        return sorted(found, key=lambda each: -each[1])[: request.limit]

    def _rarity(self) -> Mapping[int, float]:
        """The IDF of each term, as Qdrant has it: over all points with words, of all users."""
        own = [point.vectors.bm25.indices for point in self._points.values() if point.vectors]
        there = [indices for indices in own if indices]
        counts = Counter(index for indices in there for index in indices)
        return {
            term: math.log(1 + (len(there) - count + 0.5) / (count + 0.5))
            for term, count in counts.items()
        }

    async def page(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Payload]]:
        met = [point for point in self._points.values() if holds(where, point.id, point.payload)]
        beyond = sorted((point.id, point.payload) for point in met if not after or point.id > after)
        return beyond[:PAGE]

    async def vectors(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Floats]]:
        met = [point for point in self._points.values() if holds(where, point.id, point.payload)]
        beyond = sorted(
            (point for point in met if not after or point.id > after), key=lambda point: point.id
        )
        return [(point.id, point.vectors.text) for point in beyond[:_VECTORS] if point.vectors]

    async def count(self, where: Condition) -> int:
        return sum(holds(where, point.id, point.payload) for point in self._points.values())

    async def close(self) -> None:
        pass


def _score(request: Nearest, vectors: PointVectors, rarity: Mapping[int, float]) -> float | None:
    """None where the point has no such vector, or no word of the question."""
    asked = request.vector
    if isinstance(asked, SparseVector):
        own = dict(zip(vectors.bm25.indices, vectors.bm25.values, strict=True))
        shared = [(index, value) for index, value in _terms(asked) if index in own]
        return sum(rarity.get(i, 0.0) * value * own[i] for i, value in shared) if shared else None
    if request.using == "text":
        return _cosine(asked, vectors.text)
    own = vectors.tokens if request.using == "tokens" else vectors.topics
    if not len(own):
        return None
    return float((asked @ own.astype(np.float32).T).max(axis=1).sum())


def _terms(vector: SparseVector) -> Sequence[tuple[int, float]]:
    return list(zip(vector.indices, vector.values, strict=True))


def _cosine(one: Floats, other: Floats) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0
