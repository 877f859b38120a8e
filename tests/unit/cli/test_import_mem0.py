"""`import --from mem0-oss`: a local Mem0's memories come in with their own ids."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from qdrant_client import QdrantClient, models

from tests.unit.cli.conftest import Command, FakeClient

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def folder_of(path: Path, *payloads: dict[str, str], name: str = "mem0") -> list[str]:
    """A local Qdrant as Mem0 leaves it; the ids of its memories."""
    client = QdrantClient(path=str(path))
    size = models.VectorParams(size=2, distance=models.Distance.COSINE)
    for collection in (name, f"{name}_entities"):
        client.create_collection(collection, size)
    ids = [str(uuid4()) for _ in payloads]
    points = [
        models.PointStruct(id=memory_id, vector=[1.0, 0.0], payload=payload)
        for memory_id, payload in zip(ids, payloads, strict=True)
    ]
    client.upsert(name, points)
    client.close()
    return ids


SAID = {"data": "I ski", "hash": "h", "user_id": "alice", "created_at": "2025-01-31T08:20:15Z"}


def test_memories_keep_their_ids(command: Command, client: FakeClient, tmp_path: Path):
    (memory_id,) = folder_of(tmp_path / "qdrant", SAID | {"source": "chat"})
    result = command("import", "--from", "mem0-oss", str(tmp_path / "qdrant"), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["accepted"] == 1
    (published,) = client.memories.values()
    assert (published.memory_id, published.user_id, published.text) == (memory_id, "alice", "I ski")
    assert published.metadata == {"source": "chat"}


def test_a_memory_that_is_nobodys_is_told(command: Command, client: FakeClient, tmp_path: Path):
    _, nobodys = folder_of(tmp_path / "qdrant", SAID, {"data": "I help", "agent_id": "bot"})
    result = command("import", "--from", "mem0-oss", str(tmp_path / "qdrant"))
    assert result.exit_code == 1
    assert f'memory {nobodys}: no "user"' in result.stderr
    assert len(client.memories) == 1


def test_a_folder_of_something_else_is_refused(
    command: Command, client: FakeClient, tmp_path: Path
):
    result = command("import", "--from", "mem0-oss", str(tmp_path))
    assert result.exit_code == 2
    assert "meta.json" in result.stderr


def test_of_several_collections_one_must_be_named(
    command: Command, client: FakeClient, tmp_path: Path
):
    folder_of(tmp_path / "qdrant", SAID, name="one")
    folder_of(tmp_path / "qdrant", SAID, name="two")
    asked = ("import", "--from", "mem0-oss", str(tmp_path / "qdrant"))
    assert "--collection" in command(*asked).stderr
    assert command(*asked, "--collection", "two").exit_code == 0
    assert len(client.memories) == 1
