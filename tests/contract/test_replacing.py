"""An index is replaced by a fresh one while it is used: by its owner, or behind an alias on a server."""

import asyncio
import shutil
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from pipeline.errors import Refused, Unusable
from pipeline.ports import MemoryVectors
from pipeline.stores import replaceable
from pipeline.stores.edge_files import current
from pipeline.stores.edge_folders import fresh_folder, open_owned, take_over
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import IndexShape
from pipeline.stores.qdrant import IN_PROCESS, FreshCollection, QdrantPoints
from pipeline.stores.qdrant_collections import Collections
from schemas.search import SearchFilter
from tests.builders import DIMENSIONS, MODEL, enriched, question

SHAPE = IndexShape(MODEL, DIMENSIONS)


async def owned(directory: Path) -> replaceable.ReplaceableIndex:
    return await open_owned(directory, SHAPE)


def folders(directory: Path) -> list[str]:
    return [folder.name for folder in directory.glob("index*")]


async def ids(index: MemoryVectors | VectorIndex) -> set[str]:
    hits = await index.search("alice", question(), filter=SearchFilter(), limit=100, min_score=None)
    return {hit.memory_id for hit in hits}


async def test_the_owner_writes_to_both_and_then_answers_from_the_fresh_one(tmp_path: Path) -> None:
    index = await owned(tmp_path)
    await index.write([enriched(memory_id="old")])
    async with fresh_folder(tmp_path, SHAPE) as (name, fresh):
        await fresh.write([enriched(memory_id="filled")])
        await fresh.close()
        await index.adopt(name)
        await index.adopt(name)
        await index.write([enriched(memory_id="both")])
        assert await ids(index) == {"old", "both"}
        await index.switch(name)
        await index.switch(name)
        assert await ids(index) == {"filled", "both"}
    await index.write([enriched(memory_id="later")])
    await index.close()
    assert folders(tmp_path) == [name]
    again = await owned(tmp_path)
    assert await ids(again) == {"filled", "both", "later"}
    await again.close()


async def test_searches_under_way_end_on_the_index_they_began_on(tmp_path: Path) -> None:
    index = await owned(tmp_path)
    await index.write([enriched(memory_id="m")])
    async with fresh_folder(tmp_path, SHAPE) as (name, fresh):
        await fresh.write([enriched(memory_id="m")])
        await fresh.close()
        await index.adopt(name)
        searches = [asyncio.create_task(ids(index)) for _ in range(50)]
        await asyncio.sleep(0)
        await index.switch(name)
        assert await asyncio.gather(*searches) == [{"m"}] * 50
    await index.close()


async def test_what_was_not_adopted_is_not_switched_to(tmp_path: Path) -> None:
    index = await owned(tmp_path)
    async with fresh_folder(tmp_path, SHAPE) as (name, fresh):
        await fresh.close()
        with pytest.raises(Refused, match="not written to"):
            await index.switch(name)
        await index.adopt(name)
        await index.abandon()
        with pytest.raises(Refused, match="not written to"):
            await index.switch(name)
    with pytest.raises(Refused, match="There is no index"):
        await index.adopt(name)
    assert current(tmp_path) == "index"
    await index.close()


async def test_a_fresh_index_that_nobody_switches_to_is_left_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaceable, "ADOPTED_FOR_S", -1.0)
    index = await owned(tmp_path)
    async with fresh_folder(tmp_path, SHAPE) as (name, fresh):
        await fresh.close()
        await index.adopt(name)
        await index.write([enriched(memory_id="m")])
        with pytest.raises(Refused, match="not written to"):
            await index.switch(name)
        assert await ids(index) == {"m"}
        await index.close()


async def test_an_interrupted_rebuild_leaves_the_old_index_and_no_rubbish(tmp_path: Path) -> None:
    index = await owned(tmp_path)
    await index.write([enriched(memory_id="old")])
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        async with fresh_folder(tmp_path, SHAPE) as (_, fresh):
            await fresh.write([enriched(memory_id="half")])
            raise KeyboardInterrupt
    killed = tmp_path / f"index-{'0' * 32}"
    killed.mkdir()
    async with fresh_folder(tmp_path, SHAPE):
        assert not killed.exists()
        with pytest.raises(Refused, match="Another rebuild"):
            async with fresh_folder(tmp_path, SHAPE):
                pass
    assert folders(tmp_path) == ["index"]
    assert await ids(index) == {"old"}
    await index.close()


async def test_a_fresh_index_whose_folder_is_gone_costs_its_owner_nothing(tmp_path: Path) -> None:
    index = await owned(tmp_path)
    async with fresh_folder(tmp_path, SHAPE) as (name, fresh):
        await fresh.close()
        await index.adopt(name)
        shutil.rmtree(tmp_path / name)
        await index.write([enriched(memory_id="m")])
        assert await ids(index) == {"m"}
    await index.close()


async def test_an_index_that_is_lost_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    index = await owned(tmp_path)
    async with fresh_folder(tmp_path, SHAPE) as (name, fresh):
        await fresh.close()
        await index.adopt(name)
        await index.switch(name)
    await index.close()
    shutil.rmtree(tmp_path / name)
    with pytest.raises(Refused, match="rebuild"):
        await owned(tmp_path)


async def test_an_index_of_another_model_takes_over_where_nobody_is_the_owner(
    tmp_path: Path,
) -> None:
    index = await owned(tmp_path)
    async with fresh_folder(tmp_path, IndexShape("another", 3)) as (name, fresh):
        await fresh.close()
        with pytest.raises(Refused, match="rebuild --from record"):
            await index.adopt(name)
        with pytest.raises(Refused, match="already has an owner"):
            take_over(tmp_path, name)
        await index.close()
        take_over(tmp_path, name)
    with pytest.raises(Refused, match="rebuild --from record"):
        await owned(tmp_path)
    moved = await open_owned(tmp_path, IndexShape("another", 3))
    with pytest.raises(Unusable):
        await moved.write([enriched()])
    await moved.close()


# On a server


async def behind(client: AsyncQdrantClient) -> dict[str, str]:
    return {
        alias.alias_name: alias.collection_name for alias in (await client.get_aliases()).aliases
    }


async def test_a_collection_stands_behind_an_alias_and_another_takes_its_place() -> None:
    client = AsyncQdrantClient(IN_PROCESS)
    named = Collections(client, "memories", IN_PROCESS)
    await named.prepare(SHAPE, 1, has_indexes=False)
    index = VectorIndex(QdrantPoints(client, "memories", IN_PROCESS), SHAPE)
    await index.write([enriched(memory_id="old")])
    assert await behind(client) == {"memories": "memories-1"}
    fresh = FreshCollection(client, "memories", IN_PROCESS, SHAPE)
    await fresh.make(1, has_indexes=False)
    await fresh.index.write([enriched(memory_id="filled")])
    assert await ids(index) == {"old"}
    await fresh.switch()
    await fresh.leave()
    # Who writes and searches under the name goes on, on the other collection.
    await index.write([enriched(memory_id="later")])
    assert await ids(index) == {"filled", "later"}
    assert await behind(client) == {"memories": fresh.name}
    assert [c.name for c in (await client.get_collections()).collections] == [fresh.name]
    await named.prepare(SHAPE, 1, has_indexes=False)
    await client.close()


async def test_a_collection_made_before_there_were_aliases_is_replaced_too() -> None:
    client = AsyncQdrantClient(IN_PROCESS)
    named = Collections(client, "memories", IN_PROCESS)
    await named.make("memories", SHAPE, 1)
    await named.prepare(SHAPE, 1, has_indexes=False)
    assert await behind(client) == {}
    fresh = FreshCollection(client, "memories", IN_PROCESS, SHAPE)
    await fresh.make(1, has_indexes=False)
    await fresh.switch()
    assert await behind(client) == {"memories": fresh.name}
    await client.close()


async def test_a_fresh_collection_that_was_not_switched_to_is_removed() -> None:
    client = AsyncQdrantClient(IN_PROCESS)
    fresh = FreshCollection(client, "memories", IN_PROCESS, SHAPE)
    await fresh.make(1, has_indexes=False)
    await fresh.leave()
    assert (await client.get_collections()).collections == []
    await client.close()
