"""Our words in those of Qdrant Edge: points, requests, conditions."""

from typing import Any

import qdrant_edge as edge

from pipeline.stores.conditions import (
    AnyOf,
    AtMost,
    Below,
    Between,
    Condition,
    Every,
    HasId,
    Is,
    Not,
    OneHas,
    Present,
    Some,
    Within,
)
from pipeline.stores.points import Nearest, Point, PointVectors
from schemas.events import SparseVector


def terms_of(vectors: Any) -> SparseVector | None:
    """The words of a point that was found, where they were asked for."""
    terms = vectors.get("bm25") if isinstance(vectors, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if terms is None:
        return None
    return SparseVector(indices=tuple(terms.indices), values=tuple(terms.values))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def nearest(request: Nearest) -> Any:
    """What a request asks for."""
    vector = request.vector
    if isinstance(vector, SparseVector):
        sparse = edge.SparseVector(list(vector.indices), list(vector.values))
        return edge.Query.Nearest(sparse, using=request.using)
    return edge.Query.Nearest(vector.tolist(), using=request.using)


def point_of(point: Point) -> edge.Point:
    """A point as the engine takes it."""
    return edge.Point(point.id, _vectors(point.vectors) if point.vectors else {}, point.payload)


def _vectors(vectors: PointVectors) -> dict[str, Any]:
    # Lists: the engine reads an array item by item, through Python. Empty ones it refuses.
    named: dict[str, Any] = {"text": vectors.text.tolist()}
    if len(vectors.tokens):
        named["tokens"] = vectors.tokens.tolist()
    if len(vectors.topics):
        named["topics"] = vectors.topics.tolist()
    if vectors.bm25.indices:
        named["bm25"] = edge.SparseVector(list(vectors.bm25.indices), list(vectors.bm25.values))
    return named


def filter_of(condition: Condition) -> edge.Filter:
    """A condition as the engine takes it."""
    translated = _condition(condition)
    return translated if isinstance(translated, edge.Filter) else edge.Filter(must=[translated])


def _condition(condition: Condition) -> Any:
    match condition:
        case Every(conditions):
            return edge.Filter(must=[_condition(each) for each in conditions])
        case Some(()):
            # To the engine nothing to choose from is everything.
            return edge.Filter(must_not=[edge.Filter()])
        case Some(conditions):
            return edge.Filter(should=[_condition(each) for each in conditions])
        case HasId(id):
            return edge.HasIdCondition({id})
        case Not(opposite):
            return edge.Filter(must_not=[_condition(opposite)])
        case OneHas(field, conditions):
            return edge.NestedCondition(field, filter_of(Every(conditions)))
        case Present(field):
            return edge.Filter(must_not=[edge.IsEmptyCondition(field)])
        case _:
            return _field_condition(condition)


def _field_condition(condition: Is | AnyOf | Between | AtMost | Below | Within) -> Any:
    match condition:
        case Is(field, value):
            return edge.FieldCondition(field, match=edge.MatchValue(value))
        case AnyOf(field, values):
            return edge.FieldCondition(field, match=edge.MatchAny(list(values)))
        case Between(field, gt, gte, lt, lte):
            return edge.FieldCondition(field, range=edge.RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte))
        case AtMost(field, number):
            return edge.FieldCondition(field, range=edge.RangeFloat(lte=number))
        case Below(field, number):
            return edge.FieldCondition(field, range=edge.RangeFloat(lt=number))
        case Within(field, since, until):
            moments = edge.RangeDateTime(
                gte=since.isoformat() if since else None, lt=until.isoformat() if until else None
            )
            return edge.FieldCondition(field, range=moments)
