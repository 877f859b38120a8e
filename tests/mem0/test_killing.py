"""A poller that is killed at any point repeats nothing and loses nothing; nobody's lag shows its traces."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from consumers.classifier import stage as classifier
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import GroupState, group_states
from pipeline.kafka.process import serve
from pipeline.kafka.records import group_of
from pipeline.models.classifier import HeuristicClassifier
from pipeline.sources.mem0_sim.server import Mem0Sim
from schemas.events import MemoryForgotten
from schemas.topics import EVENTS
from tests.mem0.running import committed, polling, until
from tests.mem0.test_poller import cycles, hold, kinds, seen

pytestmark = pytest.mark.connected

PER_KILL = 600


@asynccontextmanager
async def process(
    kafka: KafkaConnection, prefix: str, address: str, folder: Path
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """`hybrid-memory run mem0`, for the time of the block."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TOPIC_PREFIX": prefix,
        "MEM0_API_KEY": "a-key",
        "MEM0_HOST": address,
        "MEM0_REPLICA_LAG_SECONDS": "0",
        "SYNC_INTERVAL_SECONDS": "0.1",
    }
    with (folder / "poller.log").open("ab") as said:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline.cli", "run", "mem0"),
            env={**os.environ, **settings},
            stderr=said,
        )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.kill()
        await running.wait()


@pytest.mark.timeout(400)
async def test_a_killed_poller_repeats_and_loses_nothing(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str, tmp_path: Path
):
    chance = random.Random(5)
    ids = hold(sim, "alice", PER_KILL)
    sim.latency_s = 0.01
    for _ in range(4):
        sent = sim.requests
        async with process(kafka, prefix, address, tmp_path) as running:
            # It has asked for the project twice and is somewhere between reading and committing.
            await until(lambda before=sent: sim.requests > before + 3, timeout_s=60)
            await asyncio.sleep(chance.uniform(0, 0.4))
            running.send_signal(signal.SIGKILL)
            await running.wait()
        for memory_id in ids[-20:]:
            sim.memories.delete(memory_id)
        ids = ids[:-20] + hold(sim, "bob", 200)
    async with process(kafka, prefix, address, tmp_path):

        async def all_there() -> bool:
            events = await committed(kafka, prefix)
            known = {e.event_id for e in events if type(e).__name__ == "MemoryCaptured"}
            return len(known) >= len(ids)

        await until(all_there, timeout_s=90)
        await cycles(kafka, prefix, 3)
    events = await committed(kafka, prefix)
    assert len({event.event_id for event in events}) == len(events)
    states: dict[str, list[str]] = {}
    for event in sorted(events, key=lambda e: e.version):
        assert not hasattr(event, "partitions")
        states.setdefault(str(getattr(event, "memory_id", "")), []).append(type(event).__name__)
    gone = {memory_id for memory_id, told in states.items() if told[-1] == "MemoryForgotten"}
    assert states.keys() - gone == sim.memories.rows.keys()
    assert {tuple(told) for told in states.values()} <= {
        ("MemoryCaptured",),
        ("MemoryCaptured", "MemoryForgotten"),
    }


async def test_an_asked_poller_stops_cleanly(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str, tmp_path: Path
):
    hold(sim, "alice", 9)
    async with process(kafka, prefix, address, tmp_path) as running:
        await seen(kafka, prefix, MemoryCaptured=9)
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), 20) == 0
    said = (tmp_path / "poller.log").read_text("utf-8")
    assert "alice: 9 added, 0 updated, 0 deleted, 0 errors" in said
    assert "a-key" not in said


async def test_the_ends_of_transactions_are_no_lag(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    (first, *_) = hold(sim, "alice", 40)
    stopping = asyncio.Event()
    stage = classifier(HeuristicClassifier())
    serving = asyncio.create_task(serve(kafka, prefix, [stage], until=stopping))
    group = group_of(prefix, "classifier")

    async def state() -> GroupState:
        found = (await group_states(kafka, {group: EVENTS.under(prefix)}))[group]
        assert found is not None
        return found

    async def read_up() -> bool:
        return (await state()).lag == 0

    async with polling(kafka, prefix, address):
        await seen(kafka, prefix, MemoryCaptured=40)
        await until(read_up)
        sim.memories.delete(first)
        events = await seen(kafka, prefix, MemoryForgotten=1)
        await until(read_up)
    stopping.set()
    await serving
    assert kinds(events)[MemoryForgotten.__name__] == 1
