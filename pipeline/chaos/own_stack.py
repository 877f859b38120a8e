"""A stack of the run's own: behind proxies, with an embedder that refuses, and no other one in reach."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline import app
from pipeline.chaos.plan import nodes
from pipeline.chaos.proxy import Proxy
from pipeline.chaos.watching import READS
from pipeline.embedded import Plan, Process, Progress, Stack, discover, serve
from pipeline.embedded.ports import HOST, keep_ports
from pipeline.ending import ended
from pipeline.errors import Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import group_members
from pipeline.kafka.records import group_of
from pipeline.settings import Settings

PREFIX = "memory"
_FIRST_START_S = 600.0
"""The first time a model is measured."""


@dataclass
class Signs:
    """What the supervisor tells of the processes."""

    ready: dict[str, int] = field(default_factory=dict[str, int])
    """How often each part answered after a start."""

    def __call__(self, progress: Progress) -> None:
        if progress.phase in ("ready", "running"):
            self.ready[progress.part] = self.ready.get(progress.part, 0) + 1


class Pids(Mapping[str, int | None]):
    """The processes of the stack, as it announces them."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def _now(self) -> dict[str, int | None]:
        stack = discover(self._data)
        return {name: part.pid for name, part in stack.parts.items()} if stack else {}

    def __getitem__(self, name: str) -> int | None:
        return self._now()[name]

    def __iter__(self):
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


@asynccontextmanager
async def proxied(data: Path, brokers: int) -> AsyncGenerator[dict[str, Proxy]]:
    """A proxy before each server of the stack that will be in that folder, by its name."""
    names = [*nodes(brokers), "postgres", "valkey"]
    ports = keep_ports(data / "ports.json", _all_ports(names), {})
    async with AsyncExitStack() as open_:
        yield {
            name: await open_.enter_async_context(
                Proxy(ports[f"{name}-proxy"], ports[name]).serving()
            )
            for name in names
        }


@asynccontextmanager
async def serving(
    data: Path, brokers: int, proxies: Mapping[str, Proxy], signs: Signs
) -> AsyncGenerator[Stack]:
    """The stack in that folder; its end is the end of whoever entered, too.

    Raises Unavailable where it does not start, or ends before its time.
    """
    until = asyncio.Event()
    ready: asyncio.Future[Stack] = asyncio.get_running_loop().create_future()
    plan = Plan(
        data,
        brokers=brokers,
        kafka_advertised=[proxies[name].port for name in nodes(brokers)],
        stages=lambda stack: _stages(stack, proxies),
    )
    supervising = asyncio.create_task(
        serve(plan, on_progress=signs, on_ready=ready.set_result, until=until)
    )
    try:
        await asyncio.wait({supervising, ready}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await ended(supervising)
        raise
    if supervising.done():
        supervising.result()
    supervising.add_done_callback(partial(_end_with, asyncio.current_task(), until))
    try:
        yield ready.result()
    finally:
        too_early = supervising.done()
        until.set()
        await supervising
        if too_early:
            raise Unavailable("The stack ended before its time.")


async def until_serving(kafka: KafkaConnection) -> None:
    """Returns once every stage, and who answers questions, is in its group."""
    groups = [group_of(PREFIX, stage) for stage in (*READS, "query", "operator_desk")]
    async with asyncio.timeout(_FIRST_START_S):
        while True:
            members = await group_members(kafka, groups)
            if all(members.get(group) for group in groups):
                return
            await asyncio.sleep(0.3)


async def verified(data: Path, env: Mapping[str, str]) -> Mapping[str, int]:
    """What `hybrid-memory verify` finds in the stack of that folder, by kind: nothing, if all is well.

    Raises Unavailable where it cannot say.
    """
    verify = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.cli", "verify", "--json", "--data", str(data)),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, told = await verify.communicate()
    finally:
        if verify.returncode is None:
            verify.kill()
    try:
        report = json.loads(said)
        return {**report["kinds"], **({"undecided": n} if (n := report["in_flight"]) else {})}
    except (ValueError, KeyError) as error:
        raise Unavailable(f"`verify` does not say what it found: {told.decode()[-500:]}") from error


def addresses(stack: Stack, proxies: Mapping[str, Proxy]) -> dict[str, str]:
    """Settings that lead to this stack and to no other one, whatever the user's own say."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap_servers,
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "POSTGRES_DSN": _through(stack.postgres_dsn, proxies["postgres"]),
        "REDIS_URL": _through(stack.redis_url, proxies["valkey"]),
        # Empty: Qdrant Edge, in the stack's folder.
        "QDRANT_URL": "",
        "TOPIC_PREFIX": PREFIX,
    }


def _end_with(run: asyncio.Task[Any] | None, until: asyncio.Event, _: asyncio.Task[None]) -> None:
    """Without its stack a run would wait for ever."""
    if run is not None and not until.is_set():
        run.cancel()


def _all_ports(names: Sequence[str]) -> list[str]:
    controllers = [f"{name}-controller" for name in names if name.startswith("kafka")]
    return [*names, *controllers, *(f"{name}-proxy" for name in names)]


def _stages(stack: Stack, proxies: Mapping[str, Proxy]) -> list[Process]:
    """The stages as `up` starts them, but behind the proxies, and with an embedder that refuses."""
    settings = Settings(_env_file=None, qdrant_url=None)  # pyright: ignore[reportCallIssue]
    return [
        Process(
            process.name,
            [_brittle(word) if process.name == "embedder" else word for word in process.argv],
            {**process.env, **addresses(stack, proxies)},
        )
        for process in app.stage_processes(settings, stack)
    ]


def _brittle(word: str) -> str:
    return "pipeline.chaos.brittle" if word == "pipeline.cli" else word


def _through(address: str, proxy: Proxy) -> str:
    own = urlsplit(address)
    return address.replace(f"@{own.hostname}:{own.port}", f"@{HOST}:{proxy.port}")
