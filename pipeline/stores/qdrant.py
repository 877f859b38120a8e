"""The index on a Qdrant server or cluster, and in the client's local mode for trying things out.

One collection holds the vectors of one embedding model, in which every user is a tenant: graphs are
built for each user and none over all, so a search costs what the user's own memories cost.
"""

import math
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from qdrant_client import AsyncQdrantClient, models

from pipeline.errors import Refused
from pipeline.stores.conditions import Condition, Every
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import (
    PAGE,
    STATE_FIELDS,
    Amendment,
    Found,
    IndexShape,
    Nearest,
    Payload,
    Point,
    in_pieces,
    replaceable,
)
from pipeline.stores.qdrant_collections import Collections
from pipeline.stores.qdrant_remedies import remedies
from pipeline.stores.qdrant_words import amending, filter_of, point_of, request_of, terms_of

IN_PROCESS = ":memory:"
"""The address of the client's local mode: slow, forgets everything, needs no server."""

_PIECE = 64
_PIECE_NUMBERS = 500_000
"""What one request carries at most: some 10 MB of JSON, where the server takes 32."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A Qdrant server or cluster, and the name that our collection has there."""

    url: str = field(repr=False)
    collection: str
    api_key: str | None = field(default=None, repr=False)
    grpc_port: int | None = None
    """With it vectors travel as bytes instead of JSON."""
    replication_factor: int = 1
    """On a cluster 2 or more."""
    timeout_s: float = 30.0

    @property
    def has_indexes(self) -> bool:
        """Whether it knows payload indexes."""
        return self.url != IN_PROCESS

    @property
    def address(self) -> str:
        """Where it is, without user, password or query."""
        if self.url == IN_PROCESS:
            return self.url
        split = urlsplit(self.url if "://" in self.url else f"//{self.url}")
        return f"{split.hostname}:{split.port or 6333}"

    def client(self) -> AsyncQdrantClient:
        """What speaks with it. Raises Refused where the URL is none."""
        try:
            return AsyncQdrantClient(
                location=self.url,
                api_key=self.api_key,
                prefer_grpc=self.grpc_port is not None,
                grpc_port=self.grpc_port or 6334,
                timeout=math.ceil(self.timeout_s),
                check_compatibility=False,
            )
        except ValueError as error:
            raise Refused("QDRANT_URL is not an address such as http://localhost:6333.") from error


async def open_qdrant(server: Server, shape: IndexShape) -> VectorIndex:
    """The index in the server's collection, made if there is none.

    Raises Unavailable, and Refused where the server lets us not in or the collection holds the vectors of
    another model.
    """
    client = server.client()
    named = Collections(client, server.collection, server.address)
    try:
        await named.prepare(shape, server.replication_factor, has_indexes=server.has_indexes)
    except BaseException:
        await client.close()
        raise
    return VectorIndex(QdrantPoints(client, server.collection, server.address), shape)


async def check_model(server: Server, shape: IndexShape) -> None:
    """Raises Refused where the collection in use holds vectors of another model, and Unavailable.

    Where there is none, it makes none.
    """
    client = server.client()
    try:
        await Collections(client, server.collection, server.address).check(shape)
    finally:
        await client.close()


@asynccontextmanager
async def fresh_collection(server: Server, shape: IndexShape) -> AsyncGenerator["FreshCollection"]:
    """A fresh collection beside the one behind the server's, to be filled and switched to.

    It is removed at the end unless it was switched to. Raises Unavailable, Refused.
    """
    client = server.client()
    fresh = FreshCollection(client, server.collection, server.address, shape)
    try:
        await fresh.make(server.replication_factor, has_indexes=server.has_indexes)
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
        self._named = Collections(client, collection, address)
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


class QdrantPoints:
    """Points in one collection."""

    def __init__(self, client: AsyncQdrantClient, collection: str, address: str) -> None:
        self._client, self._collection, self._address = client, collection, address

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
                    [point_of(point) for point in piece],
                    update_filter=filter_of(replaceable(piece)),
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
                    [amending(each) for each in some],
                    ordering=models.WriteOrdering.STRONG,
                    wait=True,
                )
            )

    async def settle(self) -> None:
        """Nothing to do: every write waited for the server."""

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        told = await self._call(
            self._client.query_batch_points(
                self._collection, [request_of(request, where) for request in requests]
            )
        )
        return [
            [
                Found(UUID(str(p.id)), p.payload or {}, p.score, terms_of(p.vector))
                for p in response.points
            ]
            for response in told
        ]

    async def page(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Payload]]:
        # The offset is the first point of the page, so the one before it comes again.
        records, _ = await self._call(
            self._client.scroll(
                self._collection,
                scroll_filter=filter_of(where),
                offset=str(after) if after else None,
                limit=PAGE + 1,
                with_payload=STATE_FIELDS,
            )
        )
        page = [(UUID(str(record.id)), record.payload or {}) for record in records]
        return [(key, payload) for key, payload in page if key != after][:PAGE]

    async def count(self, where: Condition) -> int:
        counted = self._client.count(self._collection, count_filter=filter_of(where), exact=True)
        return (await self._call(counted)).count

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, request: Awaitable[T]) -> T:
        with remedies(self._address, self._collection):
            return await request


def pieces(points: Sequence[Point]) -> Sequence[Sequence[Point]]:
    """Cuts points into requests of a size that a server takes."""
    return list(in_pieces(points, _numbers, most_points=_PIECE, most_cost=_PIECE_NUMBERS))


def _numbers(point: Point) -> int:
    return point.vectors.numbers if point.vectors else 0
