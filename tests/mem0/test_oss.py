"""Mem0 itself, without its cloud: a real Memory over a local Qdrant is watched, and imported from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.cli.rows import memory_of
from pipeline.errors import Refused
from pipeline.models.weights import fetch, locate
from pipeline.sources.mem0 import Observed, Rules, observed
from pipeline.sources.mem0_oss import LocalMem0, rows
from pipeline.sources.mem0_watching import Watching
from tests.mem0.simulating import Log, LogBook, World

if TYPE_CHECKING:
    from mem0 import Memory

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Memory]":
    """Mem0 with a local model and a local Qdrant; nothing is inferred."""
    from mem0 import Memory

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    weights = str(fetch(locate("all-MiniLM-L6-v2")))
    store = {"path": str(tmp_path / "qdrant"), "embedding_model_dims": 384, "on_disk": True}
    made = Memory.from_config(
        {
            "embedder": {
                "provider": "huggingface",
                "config": {"model": weights, "embedding_dims": 384},
            },
            "vector_store": {"provider": "qdrant", "config": store},
            "history_db_path": str(tmp_path / "history.db"),
        }
    )
    yield made
    made.vector_store.client.close()


def added(memory: "Memory", text: str, **given: Any) -> str:
    """A new memory's id."""
    told: Any = memory.add(text, user_id="alice", infer=False, **given)
    return told["results"][0]["id"]


async def test_a_real_memory_is_watched_while_it_is_open(memory: "Memory", tmp_path: Path):
    thai = added(memory, "I love Thai food", metadata={"source": "chat"})
    ski = added(memory, "I ski", run_id="talk")
    log, world = Log(), World(0)
    book = LogBook(log, world)
    rules = Rules(lag_s=0.0, at_once=1)
    watching = Watching(LocalMem0(tmp_path), book, rules, clock=world.clock)
    ended, _ = await watching.cycle("here")
    assert (ended.added, ended.memories, ended.users) == (2, 2, 1)
    memory.update(thai, "I love Lao food")
    memory.delete(ski)
    ended, _ = await watching.cycle("here")
    assert (ended.added, ended.updated, ended.deleted) == (0, 1, 1)
    ended, _ = await watching.cycle("here")
    assert (ended.added, ended.updated, ended.deleted) == (0, 0, 0)


async def test_the_folder_is_read_once_in_a_cycle_that_finds_nothing_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    world = World(0)
    said = {"memory": "I ski", "user_id": "alice", "updated_at": world.clock().isoformat()}
    held = {name: observed({"id": name, **said}) for name in ("a", "b", "c")}
    reads: list[int] = []

    def read(_: LocalMem0) -> dict[str, Observed]:
        reads.append(len(held))
        return dict(held)

    monkeypatch.setattr(LocalMem0, "_read", read)
    watching = Watching(
        LocalMem0(tmp_path), LogBook(Log(), world), Rules(lag_s=0.0, at_once=1), clock=world.clock
    )
    for _ in range(3):
        await watching.cycle("here")
    assert reads == [3, 3, 3]
    del held["b"]
    ended, _ = await watching.cycle("here")
    # What is missing is looked for in another reading, and only there.
    assert (ended.deleted, ended.memories, reads) == (1, 2, [3, 3, 3, 2, 2])


async def test_a_folder_of_mem0_is_imported(memory: "Memory", tmp_path: Path):
    thai = added(memory, "I love Thai food", metadata={"source": "chat"})
    ski = added(memory, "I ski", run_id="talk")
    read = [memory_of(json.dumps(row).encode()) for row in rows(tmp_path)]
    assert [(m.memory_id, m.user_id, m.text) for m in read] == [
        (thai, "alice", "I love Thai food"),
        (ski, "alice", "I ski"),
    ]
    assert read[0].metadata["source"] == "chat"
    assert read[1].run_id == "talk"
    assert all(m.occurred_at is not None for m in read)


async def test_a_folder_without_memories_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match=r"meta\.json"):
        list(rows(tmp_path))
