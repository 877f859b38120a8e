"""Mem0 without its cloud, `mem0.Memory` over a local Qdrant: read for an import, and watched from within.

A local Qdrant belongs to one process. From outside its folder is read while nobody has it open, and no
model is needed for that. From within, LocalMem0 lets the poller watch the Memory that an application has.
"""

import asyncio
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import Refused
from pipeline.sources.mem0 import Observed, Page, moment, observed

if TYPE_CHECKING:
    from mem0 import Memory
    from qdrant_client import QdrantClient

DEFAULT_COLLECTION = "mem0"
_OTHERS = ("_entities", "migrations")
"""Ends of the names of collections that Mem0 keeps beside the one with the memories."""
_PAGE = 1_000
_COLUMNS = (
    "user_id",
    "agent_id",
    "app_id",
    "run_id",
    "expiration_date",
    "created_at",
    "updated_at",
)
_DERIVED = ("data", "hash", "text_lemmatized", "attributed_to", "role", "actor_id")


class LocalMem0:
    """A Memory of this process, as the poller reads Mem0. One call at a time: it is not made for more."""

    def __init__(self, memory: "Memory", name: str) -> None:
        self.requests = 0
        self._memory: Any = memory
        self._name = name
        self._turn = asyncio.Lock()

    async def project(self) -> str:
        """The name it was given: a Memory has none."""
        return self._name

    async def page(self, number: int, *, size: int, since: datetime | None) -> Page | None:
        """A page of all memories with `updated_at` >= `since`."""
        rows = await self._ask(self._rows)
        told = [observed(row) for row in rows]
        told = [row for row in told if since is None or (row.updated_at or since) >= since]
        start = (number - 1) * size
        if number > 1 and start >= len(told):
            return None
        return Page(told[start : start + size], len(told), more=start + size < len(told))

    async def find(self, memory_id: str) -> Observed | None:
        """One memory; None where there is none."""
        rows = await self._ask(self._rows)
        return next((observed(row) for row in rows if row["id"] == memory_id), None)

    async def tells_deletion(self, memory_id: str) -> bool:
        """Whether the memory's history ends with its deletion."""
        told = await self._ask(lambda: self._memory.history(memory_id))
        return any(entry.get("event") == "DELETE" for entry in told)

    async def _ask(self, ask: Any) -> Any:
        async with self._turn:
            self.requests += 1
            return await asyncio.to_thread(ask)

    def _rows(self) -> list[dict[str, Any]]:
        store: Any = self._memory.vector_store
        return list(_scrolled(store.client, store.collection_name))


def rows(folder: Path, collection: str | None = None) -> Generator[dict[str, Any]]:
    """All memories in a folder of Mem0's, the oldest first, as `hybrid-memory import` reads rows.

    Raises Refused where there are none, or another process has them open.
    """
    with closing(_opened(folder)) as client:
        held = _scrolled(client, collection or _collection(client, folder))
        # What was said before a memory comes before it.
        for row in sorted(held, key=lambda row: str(row["created_at"] or "")):
            yield _imported(row)


def _opened(folder: Path) -> "QdrantClient":
    from qdrant_client import QdrantClient

    found = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    place = next((p for p in found if (p / "meta.json").exists()), None)
    if place is None:
        raise Refused(
            f"{folder} holds no local Qdrant of Mem0: give the folder that is `path` in its "
            "vector_store configuration (meta.json lies in it)."
        )
    try:
        return QdrantClient(path=str(place))
    except RuntimeError as error:
        raise Refused(
            f"{place} is open in another process: end that one first. ({error})"
        ) from error


def _collection(client: "QdrantClient", folder: Path) -> str:
    names = [c.name for c in client.get_collections().collections]
    names = [name for name in names if not name.endswith(_OTHERS)]
    if DEFAULT_COLLECTION in names:
        return DEFAULT_COLLECTION
    if len(names) != 1:
        raise Refused(
            f"{folder} holds {', '.join(names) or 'no collection'}: name the one with the memories with "
            "--collection."
        )
    return names[0]


def _scrolled(client: "QdrantClient", collection: str) -> Iterator[dict[str, Any]]:
    offset: Any = None
    while True:
        points, offset = client.scroll(collection, limit=_PAGE, offset=offset, with_vectors=False)
        for point in points:
            yield row_of(str(point.id), point.payload or {})
        if offset is None:
            return


def row_of(memory_id: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A point of Mem0's as a row of its platform's."""
    columns = {name: payload.get(name) for name in _COLUMNS}
    rest = {k: v for k, v in payload.items() if k not in (*_COLUMNS, *_DERIVED)}
    said_by = {name: payload[name] for name in ("role", "actor_id") if payload.get(name)}
    return {"id": memory_id, "memory": payload.get("data"), "metadata": rest | said_by, **columns}


def _imported(row: Mapping[str, Any]) -> dict[str, Any]:
    created_at = moment(row["created_at"])
    beside = {k: row[k] for k in ("expiration_date",) if row[k]}
    return {
        "user": row["user_id"],
        "id": row["id"],
        "text": row["memory"],
        "date": created_at.isoformat() if created_at else None,
        "speaker": row["metadata"].get("actor_id"),
        **{name: row[name] for name in ("agent_id", "app_id", "run_id")},
        "metadata": {k: v for k, v in row["metadata"].items() if v is not None} | beside,
    }
