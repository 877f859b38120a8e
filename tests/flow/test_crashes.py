"""Nothing is lost when a stage or Kafka is killed in the middle of its work."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import asyncpg
import psutil
import pytest

from pipeline.app import stage_processes
from pipeline.embedded import Plan, Process, Stack, discover
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.replaying import replayed
from pipeline.settings import Settings
from producers.client import MemoryClient
from producers.receipts import Receipt
from schemas.topics import CLASSIFIED, ENRICHED, Topic
from tests.conftest import running

pytestmark = pytest.mark.connected

MEMORIES = 400
MANY = 1_200
"""More than the fastest machine embeds while they are published and a moment longer."""


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


async def publish(
    memory: MemoryClient, user: str, *, count: int = MEMORIES, run: str | None = None
) -> list[Receipt]:
    # Texts of his own: what was embedded before is through before anything can be killed.
    return await memory.remember_many(
        [
            {"text": f"Note {n} of {user}: the parser is slow", "user_id": user, "run_id": run}
            for n in range(count)
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
    receipts = await publish(memory, user, count=MANY)
    # Not all can be embedded by now: the kill hits a batch in flight.
    await asyncio.sleep(0.3)
    for victim in victims:
        kill(fragile.data, victim)
    assert await rows(fragile, user) < MANY, "the kill came too late to hit anything"
    await memory.stored(receipts, timeout_s=180)
    assert await rows(fragile, user) == MANY
    found = await memory.search("slow parser", user_id=user, limit=100)
    assert len({hit.memory_id for hit in found.hits}) == 100


async def test_what_owns_the_edge_index_may_be_killed_too(
    memory: MemoryClient, fragile: Stack
) -> None:
    user = f"user-{uuid4().hex[:8]}"
    receipts = await publish(memory, user)
    await asyncio.sleep(0.5)
    kill(fragile.data, "vector_writer+query+operator_desk+tier_writer")
    await memory.stored(receipts, timeout_s=120)
    assert await rows(fragile, user) == MEMORIES


async def test_a_rolling_restart_under_load_repeats_and_loses_nothing(
    memory: MemoryClient, fragile: Stack
) -> None:
    user = f"user-{uuid4().hex[:8]}"
    receipts: list[Receipt] = []
    for part in (
        "classifier",
        "embedder",
        "embedder-2",
        "record_writer",
        "contextualizer",
        "lifecycle",
        "vector_writer+query+operator_desk+tier_writer",
    ):
        run = "standup" if part == "contextualizer" else None
        receipts += await publish(memory, user, count=MEMORIES // 2, run=run)
        await asyncio.sleep(0.5)
        await restart(fragile.data, part)
    await memory.stored(receipts, timeout_s=180)
    assert await rows(fragile, user) == len(receipts)
    for topic in (CLASSIFIED, ENRICHED):
        assert await passed(fragile, topic, user) == len(receipts), f"{topic.name} has some twice"


async def restart(data: Path, part: str) -> None:
    """SIGTERM, as an orchestrator stops a container; returns when another process has its place."""
    stack = discover(data)
    assert stack is not None
    before = stack.parts[part].pid
    assert before is not None
    os.kill(before, signal.SIGTERM)
    async with asyncio.timeout(60):
        while stack is None or stack.parts[part].pid in (before, None):
            await asyncio.sleep(0.1)
            stack = discover(data)


async def passed(stack: Stack, topic: Topic, user: str) -> int:
    """How many records of a user went through a topic, but for those that come once more with what follows."""
    connection = KafkaConnection(stack.kafka_bootstrap_servers)
    name, ours = topic.under("memory"), f'"user_id":"{user}"'.encode()
    async with aclosing(replayed(connection, name)) as batches:
        found = [record async for batch in batches for record in batch.records]
    values = [record.value or b"" for record in found]
    return len([value for value in values if ours in value and b'"context":0' in value])
