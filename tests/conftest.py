"""What tests share: a stack of real servers, started once, and topics of each test's own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.embedded import Plan, Progress, Stack, serve
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.topics import ensure_topics


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Kafka, Postgres and Valkey, really running; no stages."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_MEMORY_HOME", str(home))
        async with running(Plan(data=home / "data")) as ready:
            yield ready


class running:  # noqa: N801
    """A stack for the time of a block: `async with running(plan) as stack`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._until = asyncio.Event()
        self.progress: list[Progress] = []

    async def __aenter__(self) -> Stack:
        ready: asyncio.Future[Stack] = asyncio.get_running_loop().create_future()
        self._serving = asyncio.create_task(
            serve(
                self._plan,
                on_progress=self.progress.append,
                on_ready=ready.set_result,
                until=self._until,
            )
        )
        await asyncio.wait([self._serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            self._serving.result()
        return ready.result()

    async def __aexit__(self, *_: object) -> None:
        self._until.set()
        await self._serving


@pytest.fixture
def kafka(stack: Stack) -> KafkaConnection:
    """The real Kafka."""
    return KafkaConnection(stack.kafka_bootstrap_servers)


@pytest.fixture
async def prefix(kafka: KafkaConnection) -> str:
    """Topics that no other test uses, with two partitions each."""
    name = f"t{uuid4().hex[:8]}"
    await ensure_topics(kafka, name, partitions=2, replication_factor=1)
    return name


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root."""
    return Path(__file__).parent.parent
