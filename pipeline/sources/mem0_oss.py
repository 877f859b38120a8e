"""Mem0 without its cloud, `mem0.Memory` over a local Qdrant: read for an import, and watched by the poller.

A local Qdrant belongs to one process. We read a copy of it, which SQLite makes as of one moment: whoever has
it open goes on and notices nothing. No model is needed for that, and nothing of Mem0 either.
"""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.errors import Refused, Unavailable
from pipeline.sources.mem0 import Observed, Page, local_project, moment, observed

if TYPE_CHECKING:
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
    """A folder of Mem0's, as the poller reads Mem0. What is listed is as of one moment."""

    def __init__(self, folder: Path, collection: str | None = None) -> None:
        self.requests = 0
        """How often it was read."""
        self._folder, self._collection = folder, collection
        self._bound = collection
        self._held: dict[str, Observed] = {}

    async def project(self) -> str:
        """The folder and the collection in it: it has no other name. What is read then is of that one.

        Raises Refused where it holds no Mem0, Unavailable where that cannot be read at the moment.
        """
        place = _place(self._folder)
        self._bound = self._collection or _only_one(_names(place), self._folder)
        return local_project(place.resolve(), self._bound)

    async def page(self, number: int, *, size: int, since: datetime | None) -> Page | None:
        """A page of all memories with `updated_at` >= `since`; the first one reads the folder anew.

        Raises Unavailable, Refused.
        """
        if number == 1:
            self._held = await asyncio.to_thread(self._read)
            self.requests += 1
        told = [r for r in self._held.values() if since is None or (r.updated_at or since) >= since]
        start = (number - 1) * size
        if number > 1 and start >= len(told):
            return None
        return Page(told[start : start + size], len(told), more=start + size < len(told))

    async def count(self) -> int:
        """How many memories were listed."""
        return len(self._held)

    async def find(self, memory_id: str) -> Observed | None:
        """One memory, as it was listed; None where there is none."""
        return self._held.get(memory_id)

    async def tells_deletion(self, memory_id: str) -> bool:
        """There are no replicas: what is not there is gone."""
        return memory_id not in self._held

    def _read(self) -> dict[str, Observed]:
        with _opened(self._folder) as client:
            name = self._bound or _collection(client, self._folder)
            return {row["id"]: observed(row) for row in _scrolled(client, name)}


def rows(folder: Path, collection: str | None = None) -> Generator[dict[str, Any]]:
    """All memories in a folder of Mem0's, the oldest first, as `hybrid-memory import` reads rows.

    Raises Refused where there are none, Unavailable where they cannot be read at the moment.
    """
    with _opened(folder) as client:
        held = _scrolled(client, collection or _collection(client, folder))
        # What was said before a memory comes before it.
        for row in sorted(held, key=lambda row: str(row["created_at"] or "")):
            yield _imported(row)


@contextmanager
def _opened(folder: Path) -> "Generator[QdrantClient]":
    from qdrant_client import QdrantClient

    with TemporaryDirectory(prefix="mem0-copy-") as copy:
        try:
            _copied(_place(folder), Path(copy))
            client = QdrantClient(path=copy)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise Unavailable(f"{folder} cannot be read at the moment: {error}") from error
        with closing(client):
            yield client


def _place(folder: Path) -> Path:
    """Where the Qdrant is: the folder, or one within it. Raises Refused."""
    found = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    place = next((p for p in found if (p / "meta.json").exists()), None)
    if place is None:
        raise Refused(
            f"{folder} holds no local Qdrant of Mem0: give the folder that is `path` in its "
            "vector_store configuration (meta.json lies in it)."
        )
    return place


def _copied(place: Path, to: Path) -> None:
    """Each collection as of one moment, however many write to it meanwhile."""
    shutil.copyfile(place / "meta.json", to / "meta.json")
    for held in place.glob("collection/*/storage.sqlite"):
        copy = to / held.relative_to(place)
        copy.parent.mkdir(parents=True)
        with (
            closing(sqlite3.connect(f"{held.resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)


def _collection(client: "QdrantClient", folder: Path) -> str:
    return _only_one([c.name for c in client.get_collections().collections], folder)


def _names(place: Path) -> list[str]:
    """The names of the collections, without opening them."""
    try:
        return [*json.loads((place / "meta.json").read_text())["collections"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{place} cannot be read at the moment: {error}") from error


def _only_one(names: Sequence[str], folder: Path) -> str:
    names = [name for name in names if not name.endswith(_OTHERS)]
    if DEFAULT_COLLECTION in names:
        return DEFAULT_COLLECTION
    if len(names) != 1:
        raise Refused(
            f"{folder} holds {', '.join(names) or 'no collection'}: name the one with the memories "
            "(import --collection, MEM0_LOCAL_COLLECTION)."
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
