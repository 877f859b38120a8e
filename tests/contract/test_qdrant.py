"""What only Qdrant's client must do: tell a server in trouble from a message in trouble."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from qdrant_client import AsyncQdrantClient

from pipeline.errors import PipelineError, Refused, Unavailable, Unusable
from pipeline.stores.payloads import memory_point
from pipeline.stores.points import IndexShape
from pipeline.stores.qdrant import IN_PROCESS, Server, open_qdrant, pieces
from pipeline.stores.qdrant_collections import Collections
from tests.builders import DIMENSIONS, MODEL, direction, enriched

SHAPE = IndexShape(MODEL, DIMENSIONS)


async def opened(url: str) -> None:
    key = "hunter2" if url.startswith("https") else None
    server = Server(url=url, collection="memories", api_key=key, timeout_s=1)
    index = await open_qdrant(server, SHAPE)
    await index.close()


@asynccontextmanager
async def serving(answer: bytes, pause_s: float = 0.0) -> AsyncGenerator[str]:
    """A server that says the same to everybody."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(pause_s)
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    listening.close()


def response(status: str) -> bytes:
    body = b'{"status": {"error": "so it is"}}'
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def test_nobody_there_is_unavailable_and_names_the_address(free_port: int) -> None:
    with pytest.raises(Unavailable, match=f"127.0.0.1:{free_port}"):
        await opened(f"http://127.0.0.1:{free_port}")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("500 Internal Server Error", Unavailable),
        ("503 Service Unavailable", Unavailable),
        ("429 Too Many Requests", Unavailable),
        ("404 Not Found", Unavailable),
        ("401 Unauthorized", Refused),
        ("403 Forbidden", Refused),
        ("400 Bad Request", Unusable),
        ("413 Payload Too Large", Unusable),
    ],
)
async def test_an_answer_names_its_remedy(status: str, remedy: type[PipelineError]) -> None:
    async with serving(response(status)) as url:
        with pytest.raises(remedy):
            await opened(url)


async def test_a_server_that_hangs_or_hangs_up_is_unavailable() -> None:
    async with serving(response("200 OK"), pause_s=3) as url:
        with pytest.raises(Unavailable):
            await opened(url)
    async with serving(b"") as url:
        with pytest.raises(Unavailable):
            await opened(url)


async def test_the_key_stays_secret(free_port: int) -> None:
    with pytest.raises(Unavailable) as caught:
        await opened(f"https://user:hunter2@127.0.0.1:{free_port}/?key=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://host:1", "host:port:more"])
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="QDRANT_URL"):
        await opened(url)


@pytest.mark.parametrize(
    "other", [replace(SHAPE, dimensions=DIMENSIONS + 1), replace(SHAPE, model="another")]
)
async def test_a_collection_of_another_model_is_refused(other: IndexShape) -> None:
    client = AsyncQdrantClient(IN_PROCESS)
    named = Collections(client, "memories", IN_PROCESS)
    await named.prepare(SHAPE, 1, has_indexes=False)
    await named.prepare(SHAPE, 1, has_indexes=False)
    with pytest.raises(Refused, match="another collection"):
        await named.prepare(other, 1, has_indexes=False)
    with pytest.raises(Refused, match="another collection"):
        await named.check(other)
    await named.check(SHAPE)
    await client.close()


async def test_who_only_looks_whose_model_it_is_makes_no_collection() -> None:
    client = AsyncQdrantClient(IN_PROCESS)
    await Collections(client, "memories", IN_PROCESS).check(SHAPE)
    assert (await client.get_collections()).collections == []
    await client.close()


def test_no_request_is_larger_than_a_server_takes() -> None:
    small = memory_point(enriched(), SHAPE)
    large = memory_point(enriched(tokens=[direction(f"{i}", 64) for i in range(3_000)]), SHAPE)
    assert [len(piece) for piece in pieces([small] * 150)] == [64, 64, 22]
    assert [len(piece) for piece in pieces([large] * 5)] == [2, 2, 1]
    assert [len(piece) for piece in pieces([large, *[small] * 2, large])] == [4]
    assert pieces([]) == []
