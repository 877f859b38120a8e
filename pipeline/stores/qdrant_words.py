"""Our words in those of Qdrant's client: points, requests, conditions."""

from typing import Any

from qdrant_client import models

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
from pipeline.stores.points import FOUND_FIELDS, Amendment, Nearest, Point, PointVectors
from schemas.events import SparseVector


def request_of(request: Nearest, where: Every) -> models.QueryRequest:
    """One request, among what meets `where`."""
    return models.QueryRequest(
        query=_nearest(request),
        using=request.using,
        filter=filter_of(Every((where, request.within))),
        limit=request.limit,
        with_payload=False if request.among else FOUND_FIELDS,
        with_vector=["bm25"] if request.with_terms else False,
        prefetch=[
            models.Prefetch(
                query=_nearest(each),
                using=each.using,
                filter=filter_of(Every((where, each.within))),
                limit=each.limit,
            )
            for each in request.among
        ],
    )


def terms_of(vectors: Any) -> SparseVector | None:
    """The words of a point that was found, where they were asked for."""
    terms = vectors.get("bm25") if isinstance(vectors, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if terms is None:
        return None
    return SparseVector(indices=tuple(terms.indices), values=tuple(terms.values))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _nearest(request: Nearest) -> Any:
    vector = request.vector
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=list(vector.indices), values=list(vector.values))
    return vector.tolist()


def point_of(point: Point) -> models.PointStruct:
    """A point as the server takes it."""
    vectors = _vectors(point.vectors) if point.vectors else {}
    return models.PointStruct(id=str(point.id), vector=vectors, payload=point.payload)


def _vectors(vectors: PointVectors) -> dict[str, Any]:
    named: dict[str, Any] = {"text": vectors.text.tolist()}
    if len(vectors.tokens):
        named["tokens"] = vectors.tokens.tolist()
    if len(vectors.topics):
        named["topics"] = vectors.topics.tolist()
    if vectors.bm25.indices:
        named["bm25"] = models.SparseVector(
            indices=list(vectors.bm25.indices), values=list(vectors.bm25.values)
        )
    return named


def amending(amendment: Amendment) -> models.SetPayloadOperation:
    """An amendment as the server takes it."""
    where = filter_of(amendment.where)
    return models.SetPayloadOperation(
        set_payload=models.SetPayload(payload=amendment.payload, filter=where)
    )


def filter_of(condition: Condition) -> models.Filter:
    """A condition as the server takes it."""
    translated = _condition(condition)
    return translated if isinstance(translated, models.Filter) else models.Filter(must=[translated])


def _condition(condition: Condition) -> Any:
    match condition:
        case Every(conditions):
            return models.Filter(must=[_condition(each) for each in conditions])
        case Some(()):
            # To the server nothing to choose from is everything.
            return models.Filter(must_not=[models.Filter()])
        case Some(conditions):
            return models.Filter(should=[_condition(each) for each in conditions])
        case HasId(id):
            return models.HasIdCondition(has_id=[str(id)])
        case Not(opposite):
            return models.Filter(must_not=[_condition(opposite)])
        case OneHas(field, conditions):
            inner = models.Nested(key=field, filter=filter_of(Every(conditions)))
            return models.NestedCondition(nested=inner)
        case Present(field):
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=field))
            return models.Filter(must_not=[empty])
        case _:
            return _field_condition(condition)


def _field_condition(condition: Is | AnyOf | Between | AtMost | Below | Within) -> Any:
    match condition:
        case Is(field, value):
            return models.FieldCondition(key=field, match=models.MatchValue(value=value))
        case AnyOf(field, values):
            return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        case Between(field, gt, gte, lt, lte):
            numbers = models.Range(gt=gt, gte=gte, lt=lt, lte=lte)
            return models.FieldCondition(key=field, range=numbers)
        case AtMost(field, number):
            return models.FieldCondition(key=field, range=models.Range(lte=number))
        case Below(field, number):
            return models.FieldCondition(key=field, range=models.Range(lt=number))
        case Within(field, since, until):
            return models.FieldCondition(key=field, range=models.DatetimeRange(gte=since, lt=until))
