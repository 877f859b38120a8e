"""What every cache promises, and what a dead one still does."""

import asyncio
import time

from pipeline.ports import Cache
from pipeline.stores.redis import RedisCache


async def test_what_was_put_is_there(cache: Cache) -> None:
    entries = {"a": b"1", "ключ 🍜": bytes(range(256)), "empty": b""}
    await cache.put_many(entries, ttl_s=60)
    assert await cache.get_many(["empty", "ключ 🍜", "other", "a"]) == [
        b"",
        bytes(range(256)),
        None,
        b"1",
    ]


async def test_the_last_value_counts(cache: Cache) -> None:
    await cache.put_many({"twice": b"1"}, ttl_s=60)
    await cache.put_many({"twice": b"2"}, ttl_s=60)
    assert await cache.get_many(["twice", "twice"]) == [b"2", b"2"]


async def test_an_entry_goes_when_its_time_is_over(cache: Cache) -> None:
    await cache.put_many({"short": b"1"}, ttl_s=1)
    assert await cache.get_many(["short"]) == [b"1"]
    await asyncio.sleep(1.1)
    assert await cache.get_many(["short"]) == [None]


async def test_nothing_asked_is_nothing_told(cache: Cache) -> None:
    assert await cache.get_many([]) == []
    await cache.put_many({}, ttl_s=60)


async def test_a_dead_cache_is_a_miss(free_port: int) -> None:
    cache = RedisCache(f"redis://127.0.0.1:{free_port}")
    await cache.put_many({"a": b"1"}, ttl_s=60)
    assert await cache.get_many(["a", "b"]) == [None, None]
    await cache.close()


async def test_a_cache_that_does_not_answer_is_soon_left_alone() -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cache = RedisCache(f"redis://127.0.0.1:{port}", timeout_s=0.2)
    began = time.monotonic()
    for _ in range(20):
        assert await cache.get_many(["a"]) == [None]
    assert time.monotonic() - began < 2
    await cache.close()
    server.close()


async def test_a_server_that_wants_a_password_is_a_miss(valkey: str) -> None:
    cache = RedisCache(valkey.replace("redis://", "redis://user:wrong@"))
    assert await cache.get_many(["a"]) == [None]
    await cache.close()


async def test_a_cache_that_comes_back_is_used_again(valkey: str, free_port: int) -> None:
    cache = RedisCache(valkey, rest_s=0.1)
    working, dead = cache, RedisCache(f"redis://127.0.0.1:{free_port}", rest_s=0.1)
    assert await dead.get_many(["back"]) == [None]
    server = await asyncio.start_server(
        lambda reader, writer: _relay(reader, writer, valkey), "127.0.0.1", free_port
    )
    await working.put_many({"back": b"1"}, ttl_s=60)
    await asyncio.sleep(0.2)
    assert await dead.get_many(["back"]) == [b"1"]
    await dead.close()
    await working.close()
    server.close()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
    host, port = address.removeprefix("redis://").split(":")
    theirs, ours = await asyncio.open_connection(host, int(port))
    await asyncio.gather(_pour(reader, ours), _pour(theirs, writer))


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    sink.close()
