"""What does it take to follow a Mem0 project, beside a sync that gets everything every time?

Mem0's stand-in, a process of its own, holds the memories of many users. The poller syncs them from empty to
a real Kafka; then a share of them changes (a third each added, updated, deleted) and one cycle follows.
After that come quiet cycles, and single changes. The plain sync asks for the users, pages through the
memories of each, and compares them with what it got the time before; it publishes nothing.

Each request waits `--latency` seconds at the stand-in, as over a network. The poller has four requests under
way at most, the plain sync one, as a loop over `get_all` has.

    python -m benchmarks.mem0_sync [--users 1000] [--each 100] [--changed 0.01] [--latency 0.02] [--json]
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.embedded import Plan, Stack, serve
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.topics import ensure_topics
from pipeline.sources import mem0_ledger
from pipeline.sources.mem0 import Rules, fingerprint
from pipeline.sources.mem0_api import Mem0Api, opened
from pipeline.sources.mem0_sim.server import serving, stand_in
from pipeline.sources.mem0_watching import Watching

if TYPE_CHECKING:
    from mem0 import AsyncMemoryClient

PREFIX = "bench"
SPREAD_S = 30 * 86_400
"""Over how long the memories came."""


def platform(pipe: Connection, users: int, each: int, latency_s: float) -> None:
    """The stand-in in a process of its own; says where it is, and changes a share when it is told to."""
    asyncio.run(_platform(pipe, users, each, latency_s))


async def _platform(pipe: Connection, users: int, each: int, latency_s: float) -> None:
    started, now = time.time(), [time.time() - SPREAD_S]
    sim = stand_in(clock=lambda: now[0])
    sim.latency_s = latency_s
    for number in range(users * each):
        now[0] = started - SPREAD_S + number * SPREAD_S / (users * each)
        sim.memories.hold(f"fact {number}", {"user_id": f"user-{number % users}"})
    async with serving(sim) as address:
        pipe.send(address)
        while (share := await asyncio.to_thread(pipe.recv)) is not None:
            now[0] = time.time()
            ids = random.Random(1).sample(sorted(sim.memories.rows), int(share * users * each))
            for number, memory_id in enumerate(ids):
                if number % 3 == 0:
                    sim.memories.hold(f"new {memory_id}", {"user_id": f"user-{number % users}"})
                elif number % 3 == 1:
                    sim.memories.update(memory_id, {"text": f"changed {memory_id}"})
                else:
                    sim.memories.delete(memory_id)
            pipe.send(len(ids))


async def run(
    users: int, each: int, changed: float, latency_s: float, folder: Path
) -> dict[str, Any]:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=platform, args=(there, users, each, latency_s), daemon=True
    )
    process.start()
    tell(f"making {users * each:,} memories")
    address = await asyncio.to_thread(here.recv)

    async def change(share: float) -> int:
        here.send(share)
        return await asyncio.to_thread(here.recv)

    try:
        async with _kafka(folder) as kafka, opened("any", address, folder / "mem0") as api:
            await ensure_topics(kafka, PREFIX, partitions=6, replication_factor=1)
            return await _measured(api, kafka, change, changed) | {
                "users": users,
                "memories": users * each,
                "latency_s": latency_s,
            }
    finally:
        here.send(None)
        process.join(10)


async def _measured(
    api: Mem0Api, kafka: KafkaConnection, change: Any, share: float
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    async with mem0_ledger.opened(kafka, PREFIX) as book:
        # The stand-in has no replicas that lag: nothing has to wait for them.
        rules = replace(Rules(), lag_s=0.0)
        watching = Watching(api, book, rules, clock=lambda: datetime.now(UTC))
        project = await api.project()

        async def cycle(name: str) -> None:
            tell(name)
            ended, _ = await watching.cycle(project)
            told = ended.model_dump(include={"requests", "added", "updated", "deleted"})
            results[name] = {"took_s": round(ended.took_s, 2), **told}

        await cycle("from empty")
        tell("plain sync, from empty")
        plain: dict[str, str] = {}
        results["plain, from empty"] = await _plain(api, plain)
        results["changes"] = await change(share)
        await cycle("after the changes")
        results["plain, after the changes"] = await _plain(api, plain)
        await cycle("quiet")
        await change(2.5 / len(book.seen))
        await cycle("one added, one updated")
        results["plain, quiet"] = await _plain(api, plain)
    tell("reading the checkpoint")
    began = time.perf_counter()
    async with mem0_ledger.opened(kafka, PREFIX) as book:
        results["starting again_s"] = round(time.perf_counter() - began, 2)
        results["known"] = len(book.seen)
    return results


async def _plain(api: Mem0Api, before: dict[str, str]) -> Mapping[str, Any]:
    """Everything of everybody, one request after the other."""
    client: AsyncMemoryClient = api.client
    began, asked = time.perf_counter(), api.requests
    now: dict[str, str] = {}
    for user in await _users(client):
        page, more = 1, True
        while more:
            told: Any = await client.get_all(
                filters={"user_id": user}, page=page, page_size=100, show_expired=True
            )
            now |= {row["id"]: fingerprint(row) for row in told["results"]}
            page, more = page + 1, told["next"] is not None
    changes = sum(before.get(i) != f for i, f in now.items()) + len(before.keys() - now.keys())
    before.clear()
    before.update(now)
    took_s = round(time.perf_counter() - began, 2)
    return {"took_s": took_s, "requests": api.requests - asked, "changes": changes}


async def _users(client: "AsyncMemoryClient") -> list[str]:
    """All pages: the client itself asks for the first one only."""
    names: list[str] = []
    page, more = 1, True
    while more:
        told: Any = (
            await client.async_client.get("/v1/entities/", params={"page": page, "page_size": 200})
        ).json()
        names += [entity["name"] for entity in told["results"] if entity["type"] == "user"]
        page, more = page + 1, told["next"] is not None
    return names


@asynccontextmanager
async def _kafka(folder: Path) -> AsyncGenerator[KafkaConnection]:
    """A Kafka of its own."""
    until, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    tell("starting Kafka")
    task = asyncio.create_task(
        serve(
            Plan(data=folder / "data"),
            on_progress=lambda said: tell(f"{said.part} {said.phase} {said.detail}"),
            on_ready=ready.set_result,
            until=until,
        )
    )
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    stack: Stack = ready.result()
    try:
        yield KafkaConnection(stack.kafka_bootstrap_servers)
    finally:
        until.set()
        await task


def tell(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--each", type=int, default=100, help="memories a user")
    parser.add_argument("--changed", type=float, default=0.01, help="the share that changes")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds a request waits")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="hm-mem0-") as folder:
        results = asyncio.run(
            run(given.users, given.each, given.changed, given.latency, Path(folder))
        )
    if given.json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
