"""What only Qdrant Edge must do: keep its directory to itself, and what it said it had written."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.ports import Embedding, MemoryVectors, Question
from pipeline.stores.caches import Tally
from pipeline.stores.edge_files import make
from pipeline.stores.edge_folders import open_owned
from pipeline.stores.hot import HotVectors
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import IndexShape
from pipeline.stores.qdrant_edge import open_folder
from schemas.events import SparseVector
from schemas.filters import Where
from schemas.search import Hit, SearchFilter
from tests.builders import (
    DIMENSIONS,
    MODEL,
    direction,
    enriched,
    fingerprints,
    forgotten,
    question,
    user_forgotten,
)


async def opened(
    directory: Path, *, model: str = MODEL, dimensions: int = DIMENSIONS
) -> MemoryVectors:
    return await open_owned(directory, IndexShape(model, dimensions))


async def test_a_second_owner_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    with pytest.raises(Refused, match=r"already has an owner.*QDRANT_URL"):
        await opened(tmp_path)
    await first.write([enriched()])
    assert await first.count() == 1
    await first.close()


async def test_a_second_process_is_refused_too(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    child = await _child(tmp_path, writes=1)
    _, said = await child.communicate()
    assert child.returncode == 1
    assert b"already has an owner" in said
    await first.close()


async def test_what_was_written_is_there_after_closing(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    await first.write([enriched(memory_id="m"), enriched(memory_id="gone"), forgotten("gone")])
    await first.write([enriched(user_id="bob"), user_forgotten("bob")])
    before = await fingerprints(first)
    await first.close()
    second = await opened(tmp_path)
    assert await fingerprints(second) == before
    assert await second.write([enriched(user_id="bob", version=1)]) == ["forgotten"]
    hits = await second.search("alice", question(), filter=SearchFilter(), limit=9, min_score=None)
    assert [hit.memory_id for hit in hits] == ["m"]
    await second.close()


async def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    acknowledged = 0
    for _ in range(3):
        child = await _child(tmp_path, writes=1_000)
        assert child.stdout
        for _ in range(8):
            acknowledged = int(await child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        # Acknowledged are also those lines that were still under way.
        rest, _ = await child.communicate()
        acknowledged = int((rest.split() or [acknowledged])[-1])
    survivor = await opened(tmp_path)
    assert await survivor.count("alice") >= acknowledged > 0
    ids = {hit.memory_id for hit in await _all(survivor)}
    assert {f"m{i}" for i in range(acknowledged)} <= ids
    await survivor.close()


async def _all(index: MemoryVectors) -> list[Hit]:
    found = await index.search(
        "alice", question(), filter=SearchFilter(), limit=100_000, min_score=None
    )
    return list(found)


_WRITER = """
import asyncio, sys
from pathlib import Path
from pipeline.stores.edge_folders import open_owned
from pipeline.stores.points import IndexShape
from tests.builders import DIMENSIONS, MODEL, enriched

async def main():
    index = await open_owned(Path(sys.argv[1]), IndexShape(MODEL, DIMENSIONS))
    begin = await index.count("alice")
    for i in range(begin, begin + int(sys.argv[2])):
        await index.write([enriched(memory_id=f"m{i}")])
        print(i + 1, flush=True)
    await index.close()

asyncio.run(main())
"""


async def _child(directory: Path, *, writes: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _WRITER,
        str(directory),
        str(writes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("other", [{"dimensions": DIMENSIONS + 1}, {"model": "another"}])
async def test_the_index_of_another_model_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    await (await opened(tmp_path)).close()
    with pytest.raises(Refused, match="name another directory"):
        await opened(tmp_path, **other)
    await (await opened(tmp_path)).close()


async def test_an_index_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "index.new" / "shard").mkdir(parents=True)
    (tmp_path / "index.new" / "shard" / "rubbish").write_text("half")
    index = await opened(tmp_path)
    assert await index.write([enriched()]) == ["stored"]
    await index.close()


async def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "shape.json").write_text("not ours")
    with pytest.raises(Refused, match="no index of ours"):
        await opened(tmp_path)
    assert (tmp_path / "index" / "shape.json").read_text() == "not ours"


async def test_searches_and_writes_at_once_disturb_nobody(tmp_path: Path) -> None:
    index = await opened(tmp_path)
    await index.write([enriched(memory_id="m", version=1)])

    async def write(begin: int) -> None:
        for i in range(10):
            await index.write([enriched(memory_id=f"m{begin + i}") for _ in range(5)])

    async def search() -> None:
        for _ in range(40):
            hits = await index.search(
                "alice", question(), filter=SearchFilter(), limit=5, min_score=None
            )
            assert hits

    await asyncio.gather(write(100), write(200), search(), search())
    assert await index.count() == 21
    await index.close()


async def test_looking_first_where_vectors_in_the_process_point_finds_the_same(
    tmp_path: Path,
) -> None:
    tally = Tally("memories")
    shape = IndexShape(MODEL, DIMENSIONS)
    make(tmp_path / "index", shape)
    index = await open_folder(
        tmp_path / "index",
        shape,
        keep=lambda points: HotVectors(points, 2**20, tally, min_rows=1, questions=1),
    )
    plain = VectorIndex(index.points, index.shape)

    async def same(text: str, filter: SearchFilter) -> None:
        asked = Question(question(text), SparseVector(indices=(), values=()))
        found = [
            await each.candidates("alice", asked, filter=filter, mode="hybrid", depth=5)
            for each in (index, plain)
        ]
        assert len(found[0]) == 5
        assert found[0] == found[1]
        hits = [
            await each.search("alice", question(text), filter=filter, limit=5, min_score=None)
            for each in (index, plain)
        ]
        assert hits[0] == hits[1]

    said = ["Ana", "Bob", None]
    await index.write(
        [enriched(f"{n}", memory_id=f"m{n}", speaker=said[n % 3]) for n in range(150)]
    )
    before = asyncio.all_tasks()
    await same("0", SearchFilter())
    await asyncio.gather(*asyncio.all_tasks() - before)
    assert tally.held_bytes
    await index.write([enriched("new", memory_id="m7"), forgotten("m8")])
    for text in ("new", "1", "2", "3"):
        await same(text, SearchFilter())
        await same(text, SearchFilter(speaker="Ana"))
    assert tally.hits >= 8
    await index.close()


async def test_a_long_question_lets_others_in_between(tmp_path: Path) -> None:
    index = await opened(tmp_path)
    tokens = np.ones((256, 64), np.float16)
    await index.write([enriched(f"text {n}", memory_id=f"m{n}", tokens=tokens) for n in range(8)])
    long = Question(
        Embedding(direction("text 1"), tokens), SparseVector(indices=(), values=()), None
    )
    asking = asyncio.create_task(
        index.candidates("alice", long, filter=SearchFilter(), mode="hybrid", depth=8)
    )
    await asyncio.sleep(0)
    assert await index.count("bob") == 0
    assert not asking.done()
    assert len(await asking) == 8
    await index.close()


async def test_a_filter_that_reads_each_memory_lets_others_in_between(tmp_path: Path) -> None:
    index = await opened(tmp_path)
    await index.write(
        [enriched("tea", memory_id=f"m{n:03}", metadata={"stars": n}) for n in range(100)]
    )
    where = Where.model_validate({"not": {"metadata": {"stars": {"gt": 49}}}})
    asking = asyncio.create_task(
        index.search(
            "alice", question("tea"), filter=SearchFilter(where=where), limit=99, min_score=None
        )
    )
    await asyncio.sleep(0)
    for _ in range(3):
        assert await index.count("bob") == 0
        assert not asking.done()
    assert [hit.memory_id for hit in await asking] == [f"m{n:03}" for n in range(50)]
    await index.close()


async def test_large_memories_let_others_in_between(tmp_path: Path) -> None:
    index = await opened(tmp_path)
    kinds: list[Any] = [
        {"metadata": {"a": list(range(1_200))}},
        {"tokens": np.ones((1_500, 64), np.float16)},
    ]
    for kind, large in enumerate(kinds):
        there = await index.count()
        writing = asyncio.create_task(
            index.write([enriched(memory_id=f"{kind}-{n}", **large) for n in range(8)])
        )
        seen: set[int] = set()
        while not writing.done():
            seen.add(await index.count() - there)
        await writing
        assert seen - {0, 8}
    await index.close()
