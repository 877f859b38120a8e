"""The index on a Qdrant server or cluster, and in the client's local mode for trying things out.

One collection holds the vectors of one embedding model, in which every user is a tenant: graphs are
built for each user and none over all, so a search costs what the user's own memories cost.
"""

import math
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from pipeline.errors import PipelineError, Refused, Unavailable, Unusable
from pipeline.ports import Floats
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import (
    INDEXED,
    PAGE,
    STATE_FIELDS,
    TOKEN_DIMENSIONS,
    AnyOf,
    AtMost,
    Below,
    Condition,
    Every,
    Found,
    HasId,
    IndexShape,
    Is,
    Payload,
    Point,
    PointVectors,
    Some,
    Within,
    replaceable,
)

IN_PROCESS = ":memory:"
"""The address of the client's local mode: slow, forgets everything, needs no server."""

_PIECE = 64
_PIECE_NUMBERS = 500_000
"""What one request carries at most: some 10 MB of JSON, where the server takes 32."""

T = TypeVar("T")


async def open_qdrant(
    url: str,
    *,
    collection: str,
    model: str,
    dimensions: int,
    api_key: str | None = None,
    grpc_port: int | None = None,
    replication_factor: int = 1,
    timeout_s: float = 30.0,
) -> VectorIndex:
    """The index in `collection` on the server at `url`, made if there is none.

    With `grpc_port` vectors travel as bytes instead of JSON. On a cluster give a `replication_factor` of
    2 or more. Raises Unavailable, and Refused where the server lets us not in or the collection holds
    the vectors of another model.
    """
    shape = IndexShape(model, dimensions)
    points = QdrantPoints(_client(url, api_key, grpc_port, timeout_s), collection, _address(url))
    try:
        await points.prepare(shape, replication_factor, has_indexes=url != IN_PROCESS)
    except BaseException:
        await points.close()
        raise
    return VectorIndex(points, shape)


def _client(
    url: str, api_key: str | None, grpc_port: int | None, timeout_s: float
) -> AsyncQdrantClient:
    try:
        return AsyncQdrantClient(
            location=url,
            api_key=api_key,
            prefer_grpc=grpc_port is not None,
            grpc_port=grpc_port or 6334,
            timeout=math.ceil(timeout_s),
            check_compatibility=False,
        )
    except ValueError as error:
        raise Refused("QDRANT_URL is not an address such as http://localhost:6333.") from error


def _address(url: str) -> str:
    """Where the server is, without user, password or query."""
    if url == IN_PROCESS:
        return url
    split = urlsplit(url if "://" in url else f"//{url}")
    return f"{split.hostname}:{split.port or 6333}"


class QdrantPoints:
    """Points in one collection."""

    def __init__(self, client: AsyncQdrantClient, collection: str, address: str) -> None:
        self._client, self._collection, self._address = client, collection, address

    async def prepare(
        self, shape: IndexShape, replication_factor: int, *, has_indexes: bool
    ) -> None:
        """Makes the collection unless it is there, and checks that it is ours. Safe to race."""
        if not await self._call(self._client.collection_exists(self._collection)):
            await self._make(shape, replication_factor)
        info = await self._call(self._client.get_collection(self._collection))
        _check_shape(info, shape, self._collection)
        if has_indexes:
            for name, kind in INDEXED.items():
                await self._call(
                    self._client.create_payload_index(
                        self._collection, name, _PAYLOAD_INDEXES[kind], wait=True
                    )
                )

    async def _make(self, shape: IndexShape, replication_factor: int) -> None:
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config=_vector_params(shape.dimensions),
                sparse_vectors_config={
                    "bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)
                },
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=0),
                on_disk_payload=True,
                replication_factor=replication_factor,
                write_consistency_factor=min(2, replication_factor),
                metadata={"model": shape.model},
            )
        except Exception as error:
            # Another process may have made it in this moment.
            if not await self._call(self._client.collection_exists(self._collection)):
                raise _remedy(error, self._address, self._collection) from error

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        records = await self._call(
            self._client.retrieve(
                self._collection, [str(key) for key in ids], with_payload=STATE_FIELDS
            )
        )
        return {UUID(str(record.id)): record.payload or {} for record in records}

    async def put(self, points: Sequence[Point]) -> None:
        for piece in pieces(points):
            await self._call(
                self._client.upsert(
                    self._collection,
                    [_point(point) for point in piece],
                    update_filter=_filter(replaceable(piece)),
                    ordering=models.WriteOrdering.STRONG,
                    wait=True,
                )
            )

    async def settle(self) -> None:
        """Nothing to do: every write waited for the server."""

    async def nearest(self, text: Floats, where: Every, limit: int) -> Sequence[Found]:
        response = await self._call(
            self._client.query_points(
                self._collection,
                query=text.tolist(),
                using="text",
                query_filter=_filter(where),
                limit=limit,
                with_payload=True,
            )
        )
        return [Found(point.payload or {}, point.score) for point in response.points]

    async def page(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Payload]]:
        # The offset is the first point of the page, so the one before it comes again.
        records, _ = await self._call(
            self._client.scroll(
                self._collection,
                scroll_filter=_filter(where),
                offset=str(after) if after else None,
                limit=PAGE + 1,
                with_payload=STATE_FIELDS,
            )
        )
        page = [(UUID(str(record.id)), record.payload or {}) for record in records]
        return [(key, payload) for key, payload in page if key != after][:PAGE]

    async def count(self, where: Condition) -> int:
        counted = self._client.count(self._collection, count_filter=_filter(where), exact=True)
        return (await self._call(counted)).count

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, request: Awaitable[T]) -> T:
        try:
            return await request
        except Exception as error:
            raise _remedy(error, self._address, self._collection) from error


def _remedy(error: Exception, address: str, collection: str) -> Exception:
    """What to do about an error of the client; the error itself where it is a bug."""
    match error:
        case ResponseHandlingException() if not isinstance(error.source, ValueError):
            return _unavailable(address, type(error.source).__name__)
        case ResourceExhaustedResponse():
            return _unavailable(address, "too many requests")
        case UnexpectedResponse():
            return _by_status(error.status_code or 500, str(error), address, collection)
        case grpc.aio.AioRpcError():
            status = _HTTP_STATUS.get(error.code(), 503)
            return _by_status(status, error.details() or error.code().name, address, collection)
        case _:
            return error


def _by_status(status: int, said: str, address: str, collection: str) -> PipelineError:
    if status in {401, 403}:
        return Refused(f"Qdrant at {address} lets us not in: check QDRANT_API_KEY and its rights.")
    if status == 404:
        return Unavailable(
            f"Qdrant at {address} has no collection {collection!r} any more: start again to make it, "
            "then fill it from memory.enriched."
        )
    if status in {408, 429} or status >= 500:
        return _unavailable(address, said)
    return Unusable(f"Qdrant at {address} does not take this: {said}")


def _unavailable(address: str, reason: str) -> Unavailable:
    return Unavailable(f"Qdrant at {address} does not answer ({reason}): is it running?")


_HTTP_STATUS: Mapping[Any, int] = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
}
"""Of gRPC's codes that are not about a server in trouble."""


def _check_shape(info: models.CollectionInfo, shape: IndexShape, collection: str) -> None:
    vectors = info.config.params.vectors
    expected = _vector_params(shape.dimensions)
    there = (
        {name: params.size for name, params in vectors.items()} if isinstance(vectors, dict) else {}
    )
    if there != {name: params.size for name, params in expected.items()}:
        raise Refused(
            f"The Qdrant collection {collection!r} holds the vectors {there}, not ours of "
            f"{shape.dimensions} dimensions: {_ANOTHER_COLLECTION}"
        )
    model = (info.config.metadata or {}).get("model", shape.model)
    if model != shape.model:
        raise Refused(
            f"The Qdrant collection {collection!r} holds vectors of {model}, this process makes those "
            f"of {shape.model}: go on with the model that made them, or {_ANOTHER_COLLECTION}"
        )


_ANOTHER_COLLECTION = "name another collection, one for each model, and fill it anew."
_PAYLOAD_INDEXES: Mapping[str, Any] = {
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "datetime": models.PayloadSchemaType.DATETIME,
}


def _vector_params(dimensions: int) -> dict[str, models.VectorParams]:
    best_of_each = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    return {
        "text": models.VectorParams(
            size=dimensions,
            distance=models.Distance.COSINE,
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
        ),
        "tokens": models.VectorParams(
            size=TOKEN_DIMENSIONS,
            distance=models.Distance.DOT,
            multivector_config=best_of_each,
            datatype=models.Datatype.FLOAT16,
            on_disk=True,
        ),
        "topics": models.VectorParams(
            size=dimensions,
            distance=models.Distance.COSINE,
            multivector_config=best_of_each,
            on_disk=True,
        ),
    }


def pieces(points: Sequence[Point]) -> Sequence[Sequence[Point]]:
    """Cuts points into requests of a size that a server takes."""
    cut: list[list[Point]] = []
    numbers = 0
    for point in points:
        more = _numbers(point)
        if not cut or len(cut[-1]) == _PIECE or numbers + more > _PIECE_NUMBERS:
            cut.append([])
            numbers = 0
        cut[-1].append(point)
        numbers += more
    return cut


def _numbers(point: Point) -> int:
    vectors = point.vectors
    return vectors.text.size + vectors.tokens.size + vectors.topics.size if vectors else 0


def _point(point: Point) -> models.PointStruct:
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


def _filter(condition: Condition) -> models.Filter:
    translated = _condition(condition)
    return translated if isinstance(translated, models.Filter) else models.Filter(must=[translated])


def _condition(condition: Condition) -> Any:
    match condition:
        case Every(conditions):
            return models.Filter(must=[_condition(each) for each in conditions])
        case Some(conditions):
            return models.Filter(should=[_condition(each) for each in conditions])
        case HasId(id):
            return models.HasIdCondition(has_id=[str(id)])
        case Is(field, value):
            return models.FieldCondition(key=field, match=models.MatchValue(value=value))
        case AnyOf(field, values):
            return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        case AtMost(field, number):
            return models.FieldCondition(key=field, range=models.Range(lte=number))
        case Below(field, number):
            return models.FieldCondition(key=field, range=models.Range(lt=number))
        case Within(field, since, until):
            return models.FieldCondition(key=field, range=models.DatetimeRange(gte=since, lt=until))
