"""Near and far: what is asked first, what has to go, what is counted."""

import tracemalloc

import pytest

from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.caches import ENTRY_BYTES, Caches, HotCache, TieredCache


async def test_the_least_recently_used_goes_when_there_is_no_room() -> None:
    cache = HotCache(3 * (ENTRY_BYTES + 100))
    for key in "abc":
        await cache.put_many({key: bytes(100)}, ttl_s=60)
    await cache.get_many(["a"])
    await cache.put_many({"d": bytes(100)}, ttl_s=60)
    assert [value is not None for value in await cache.get_many(list("abcd"))] == [
        True,
        False,
        True,
        True,
    ]
    assert cache.held_bytes == 3 * (ENTRY_BYTES + 100)


async def test_what_is_larger_than_all_the_room_costs_nobody_theirs() -> None:
    cache = HotCache(2_000)
    await cache.put_many({"small": b"1"}, ttl_s=60)
    await cache.put_many({"large": bytes(10_000)}, ttl_s=60)
    assert await cache.get_many(["small", "large"]) == [b"1", None]


async def test_the_budget_is_what_it_really_takes() -> None:
    cache = HotCache(4_000_000)
    tracemalloc.start()
    for number in range(2_000):
        entry = {f"answer:{number:064}": bytes(bytearray(900))}
        await cache.put_many(entry, ttl_s=60)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken == pytest.approx(cache.held_bytes, rel=0.2)


async def test_what_a_farther_tier_has_is_nearer_the_next_time() -> None:
    near, far = HotCache(100_000), CacheInMemory()
    tiers = TieredCache("vectors", {0: near, 2: far})
    await far.put_many({"a": b"1"}, ttl_s=60)
    assert await tiers.get_many(["a", "b"]) == [b"1", None]
    assert await near.get_many(["a"]) == [b"1"]
    assert await tiers.get_many(["a"]) == [b"1"]
    told = [(each.tier, each.hits, each.misses) for each in tiers.states]
    assert told == [(0, 1, 2), (2, 1, 1)]


async def test_each_part_can_be_switched_off() -> None:
    hot, far = HotCache(100_000), CacheInMemory()
    off = Caches(hot, far, vectors=False, answers=False)
    await off.vectors.put_many({"a": b"1"}, ttl_s=60)
    assert await off.vectors.get_many(["a"]) == [None]
    assert off.answers is None
    assert off.states == []
    assert Caches(None, far).answers is None, "generations that end with the process"
    assert [each.tier for each in Caches(None, far).states] == [2]
