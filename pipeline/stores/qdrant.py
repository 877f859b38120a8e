"""The index on a Qdrant server or cluster, and in the client's local mode for trying things out.

One collection holds the vectors of one embedding model, in which every user is a tenant: graphs are
built for each user and none over all, so a search costs what the user's own memories cost.
"""

import math
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from pipeline.errors import PipelineError, Refused, Unavailable, Unusable
from pipeline.ports import TOKEN_DIMENSIONS
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
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import (
    FOUND_FIELDS,
    INDEXED,
    PAGE,
    STATE_FIELDS,
    Amendment,
    Found,
    IndexShape,
    Nearest,
    Payload,
    Point,
    PointVectors,
    replaceable,
)
from schemas.events import SparseVector

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


async def check_model(
    url: str,
    *,
    collection: str,
    model: str,
    dimensions: int,
    api_key: str | None = None,
    grpc_port: int | None = None,
    replication_factor: int = 1,
    timeout_s: float = 30.0,
) -> None:
    """Raises Refused where the collection in use holds vectors of another model, and Unavailable."""
    index = await open_qdrant(
        url,
        collection=collection,
        model=model,
        dimensions=dimensions,
        api_key=api_key,
        grpc_port=grpc_port,
        replication_factor=replication_factor,
        timeout_s=timeout_s,
    )
    await index.close()


@asynccontextmanager
async def fresh_collection(
    url: str,
    *,
    collection: str,
    model: str,
    dimensions: int,
    api_key: str | None = None,
    grpc_port: int | None = None,
    replication_factor: int = 1,
    timeout_s: float = 30.0,
) -> AsyncGenerator["FreshCollection"]:
    """A fresh collection beside the one behind `collection`, to be filled and switched to.

    It is removed at the end unless it was switched to. Raises Unavailable, Refused.
    """
    shape = IndexShape(model, dimensions)
    client = _client(url, api_key, grpc_port, timeout_s)
    fresh = FreshCollection(client, collection, _address(url), shape)
    try:
        await fresh.make(replication_factor, has_indexes=url != IN_PROCESS)
        yield fresh
    finally:
        await fresh.leave()
        await client.close()


class FreshCollection:
    """A collection that is being filled, and the name that it is to stand behind."""

    def __init__(
        self, client: AsyncQdrantClient, collection: str, address: str, shape: IndexShape
    ) -> None:
        self.name = f"{collection}-{uuid4().hex}"
        self._named = QdrantPoints(client, collection, address)
        self._shape = shape
        self._made = self._switched = False
        self.index = VectorIndex(QdrantPoints(client, self.name, address), shape)

    async def make(self, replication_factor: int, *, has_indexes: bool) -> None:
        """Makes the collection, empty."""
        await self._named.make(self.name, self._shape, replication_factor)
        self._made = True
        if has_indexes:
            await self._named.make_indexes(self.name)

    async def switch(self) -> None:
        """From now on who asks for the name is answered from this collection."""
        await self._named.switch(self.name)
        self._switched = True

    async def leave(self) -> None:
        """Removes it, unless it is in use."""
        if self._made and not self._switched:
            await self._named.remove(self.name)


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
        """Makes the collection unless it is there, and checks that it is ours. Safe to race.

        The name is an alias, so that a rebuild can put another collection behind it.
        """
        behind = await self.behind()
        if behind is None:
            behind = f"{self._collection}-1"
            await self.make(behind, shape, replication_factor)
            await self._call(
                self._client.update_collection_aliases([_alias(self._collection, behind)])
            )
        info = await self._call(self._client.get_collection(behind))
        _check_shape(info, shape, self._collection)
        if has_indexes:
            await self.make_indexes(behind)

    async def behind(self) -> str | None:
        """The collection that the name stands for: that of the alias, or one of this very name."""
        told = await self._call(self._client.get_aliases())
        for alias in told.aliases:
            if alias.alias_name == self._collection:
                return alias.collection_name
        there = await self._call(self._client.collection_exists(self._collection))
        return self._collection if there else None

    async def make_indexes(self, collection: str) -> None:
        """Makes the payload indexes of a collection; what is there stays."""
        for name, kind in INDEXED.items():
            await self._call(
                self._client.create_payload_index(
                    collection, name, _PAYLOAD_INDEXES[kind], wait=True
                )
            )

    async def switch(self, fresh: str) -> None:
        """Puts `fresh` behind the name and removes what stood there; searches see one or the other.

        A collection of the very name, made before names were aliases, goes first: for a moment there
        is none then, and askers are told to ask again.
        """
        old = await self.behind()
        if old is not None and old == self._collection:
            await self.remove(old)
            old = None
        changes = [_alias(self._collection, fresh)]
        if old is not None:
            gone = models.DeleteAlias(alias_name=self._collection)
            changes.insert(0, models.DeleteAliasOperation(delete_alias=gone))
        await self._call(self._client.update_collection_aliases(changes))
        if old is not None and old != fresh:
            await self.remove(old)

    async def remove(self, collection: str) -> None:
        """Deletes a collection that is no longer, or not yet, behind the name."""
        await self._call(self._client.delete_collection(collection))

    async def make(self, collection: str, shape: IndexShape, replication_factor: int) -> None:
        """Makes a collection for vectors of this shape, unless another process was faster."""
        try:
            await self._client.create_collection(
                collection,
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
            if not await self._call(self._client.collection_exists(collection)):
                raise _remedy(error, self._address, self._collection) from error

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        records = await self._call(
            self._client.retrieve(
                self._collection, [str(key) for key in ids], with_payload=STATE_FIELDS
            )
        )
        return {UUID(str(record.id)): record.payload or {} for record in records}

    async def read(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        told = self._client.retrieve(self._collection, [str(key) for key in ids])
        records = await self._call(told)
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

    async def amend(self, amendments: Sequence[Amendment]) -> None:
        for begin in range(0, len(amendments), _PIECE):
            some = amendments[begin : begin + _PIECE]
            await self._call(
                self._client.batch_update_points(
                    self._collection,
                    [_amending(each) for each in some],
                    ordering=models.WriteOrdering.STRONG,
                    wait=True,
                )
            )

    async def settle(self) -> None:
        """Nothing to do: every write waited for the server."""

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        told = await self._call(
            self._client.query_batch_points(
                self._collection, [_request(request, _filter(where)) for request in requests]
            )
        )
        return [
            [
                Found(UUID(str(p.id)), p.payload or {}, p.score, _terms(p.vector))
                for p in response.points
            ]
            for response in told
        ]

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


_ANOTHER_COLLECTION = (
    "name another collection, one for each model, or move to the new model with "
    "`hybrid-memory rebuild --from record`."
)
_PAYLOAD_INDEXES: Mapping[str, Any] = {
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "datetime": models.PayloadSchemaType.DATETIME,
}


def _alias(name: str, collection: str) -> Any:
    made = models.CreateAlias(alias_name=name, collection_name=collection)
    return models.CreateAliasOperation(create_alias=made)


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


def _request(request: Nearest, where: models.Filter) -> models.QueryRequest:
    return models.QueryRequest(
        query=_nearest(request),
        using=request.using,
        filter=where,
        limit=request.limit,
        with_payload=False if request.among else FOUND_FIELDS,
        with_vector=["bm25"] if request.with_terms else False,
        prefetch=[
            models.Prefetch(query=_nearest(each), using=each.using, filter=where, limit=each.limit)
            for each in request.among
        ],
    )


def _terms(vectors: Any) -> SparseVector | None:
    terms = vectors.get("bm25") if isinstance(vectors, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if terms is None:
        return None
    return SparseVector(indices=tuple(terms.indices), values=tuple(terms.values))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _nearest(request: Nearest) -> Any:
    vector = request.vector
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=list(vector.indices), values=list(vector.values))
    return vector.tolist()


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


def _amending(amendment: Amendment) -> models.SetPayloadOperation:
    where = _filter(amendment.where)
    return models.SetPayloadOperation(
        set_payload=models.SetPayload(payload=amendment.payload, filter=where)
    )


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
        case Not(opposite):
            return models.Filter(must_not=[_condition(opposite)])
        case OneHas(field, conditions):
            inner = models.Nested(key=field, filter=_filter(Every(conditions)))
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
