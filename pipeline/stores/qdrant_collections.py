"""The collections behind one name: made, indexed, checked, and put in each other's place.

The name is an alias, so that a rebuild can put another collection behind it.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, models

from pipeline.errors import Refused
from pipeline.ports import TOKEN_DIMENSIONS
from pipeline.stores.points import INDEXED, IndexShape
from pipeline.stores.qdrant_remedies import remedies

T = TypeVar("T")


class Collections:
    """What stands behind one name."""

    def __init__(self, client: AsyncQdrantClient, name: str, address: str) -> None:
        self._client, self._name, self._address = client, name, address

    async def prepare(
        self, shape: IndexShape, replication_factor: int, *, has_indexes: bool
    ) -> None:
        """Makes the collection unless it is there, and checks that it is ours. Safe to race."""
        behind = await self.behind()
        if behind is None:
            behind = f"{self._name}-1"
            await self.make(behind, shape, replication_factor)
            await self._call(self._client.update_collection_aliases([_alias(self._name, behind)]))
        await self._check(behind, shape)
        if has_indexes:
            await self.make_indexes(behind)

    async def check(self, shape: IndexShape) -> None:
        """Raises Refused where the collection in use, if there is one, is not of this shape."""
        behind = await self.behind()
        if behind is not None:
            await self._check(behind, shape)

    async def _check(self, collection: str, shape: IndexShape) -> None:
        info = await self._call(self._client.get_collection(collection))
        _check_shape(info, shape, self._name)

    async def behind(self) -> str | None:
        """The collection that the name stands for: that of the alias, or one of this very name."""
        told = await self._call(self._client.get_aliases())
        for alias in told.aliases:
            if alias.alias_name == self._name:
                return alias.collection_name
        there = await self._call(self._client.collection_exists(self._name))
        return self._name if there else None

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
        if old is not None and old == self._name:
            await self.remove(old)
            old = None
        changes = [_alias(self._name, fresh)]
        if old is not None:
            gone = models.DeleteAlias(alias_name=self._name)
            changes.insert(0, models.DeleteAliasOperation(delete_alias=gone))
        await self._call(self._client.update_collection_aliases(changes))
        if old is not None and old != fresh:
            await self.remove(old)

    async def remove(self, collection: str) -> None:
        """Deletes a collection that is no longer, or not yet, behind the name."""
        await self._call(self._client.delete_collection(collection))

    async def make(self, collection: str, shape: IndexShape, replication_factor: int) -> None:
        """Makes a collection for vectors of this shape, unless another process was faster."""
        with remedies(self._address, self._name):
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
            except Exception:
                # Another process may have made it in this moment.
                if not await self._client.collection_exists(collection):
                    raise

    async def _call(self, request: Awaitable[T]) -> T:
        with remedies(self._address, self._name):
            return await request


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
