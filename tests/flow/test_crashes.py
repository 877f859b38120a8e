"""Nothing is lost when a stage or Kafka is killed in the middle of its work."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import psutil
import pytest

from pipeline.app import stage_processes
from pipeline.embedded import Plan, Process, Stack, discover
from pipeline.settings import Settings
from producers.client import MemoryClient
from producers.receipts import Receipt
from tests.conftest import running

pytestmark = pytest.mark.connected

MEMORIES = 400


@pytest.fixture(scope="module")
async def fragile(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stream of its own, with two embedders that share the partitions."""
    home = tmp_path_factory.mktemp("fragile")

    def processes(stack: Stack) -> list[Process]:
        stages = list(stage_processes(Settings(), stack))
        (embedder,) = [process for process in stages if process.name == "embedder"]
        return [*stages, Process("embedder-2", embedder.argv, embedder.env)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_MEMORY_HOME", str(home))
        async with running(Plan(data=home / "data", stages=processes)) as stack:
            yield stack


@pytest.fixture
async def memory(fragile: Stack) -> AsyncIterator[MemoryClient]:
    async with MemoryClient(fragile.kafka_bootstrap_servers) as client:
        yield client


def kill(data: Path, part: str) -> int:
    """SIGKILL, as an out-of-memory killer would; returns the pid that is gone."""
    stack = discover(data)
    assert stack is not None
    pid = stack.parts[part].pid
    assert pid is not None
    process = psutil.Process(pid)
    for victim in [*process.children(recursive=True), process]:
        os.kill(victim.pid, signal.SIGKILL)
    return pid


async def publish(memory: MemoryClient, user: str) -> list[Receipt]:
    return await memory.remember_many(
        [
            {"text": f"Note {n}: the parser of module {n} is slow", "user_id": user}
            for n in range(MEMORIES)
        ]
    )


async def rows(stack: Stack, user: str) -> int:
    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        return await connection.fetchval(
            "SELECT count(*) FROM memories WHERE user_id = $1 AND NOT forgotten", user
        )
    finally:
        await connection.close()


@pytest.mark.parametrize("victims", [["embedder"], ["classifier", "record_writer"], ["kafka"]])
async def test_a_kill_in_mid_stream_loses_nothing(
    memory: MemoryClient, fragile: Stack, victims: list[str]
) -> None:
    warm = await memory.remember("Every stage is at work", user_id="warm up")
    await warm.stored(timeout_s=120)
    user = f"user-{uuid4().hex[:8]}"
    receipts = await publish(memory, user)
    # Not all can be embedded by now: the kill hits a batch in flight.
    await asyncio.sleep(0.3)
    for victim in victims:
        kill(fragile.data, victim)
    with pytest.raises(AssertionError):
        assert await rows(fragile, user) == MEMORIES, "the kill came too late to hit anything"
    await memory.stored(receipts, timeout_s=120)
    assert await rows(fragile, user) == MEMORIES
    found = await memory.search("slow parser", user_id=user, limit=100)
    assert len({hit.memory_id for hit in found.hits}) == 100


async def test_what_owns_the_edge_index_may_be_killed_too(
    memory: MemoryClient, fragile: Stack
) -> None:
    user = f"user-{uuid4().hex[:8]}"
    receipts = await publish(memory, user)
    await asyncio.sleep(0.5)
    kill(fragile.data, "vector_writer+query")
    await memory.stored(receipts, timeout_s=120)
    assert await rows(fragile, user) == MEMORIES
