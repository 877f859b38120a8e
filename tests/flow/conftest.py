"""The whole stream: every stage a process of its own, on real servers and the real model."""

from collections.abc import AsyncIterator

import pytest

from pipeline.app import stage_processes
from pipeline.embedded import Plan, Stack
from pipeline.settings import Settings
from producers.client import MemoryClient
from tests.conftest import running


@pytest.fixture(scope="session")
async def stream(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with all its stages, as `hybrid-memory up` starts it."""
    home = tmp_path_factory.mktemp("stream")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_MEMORY_HOME", str(home))
        plan = Plan(data=home / "data", stages=lambda stack: stage_processes(Settings(), stack))
        async with running(plan) as stack:
            yield stack


@pytest.fixture
async def memory(stream: Stack) -> AsyncIterator[MemoryClient]:
    """A connected client."""
    async with MemoryClient(stream.kafka_bootstrap_servers) as client:
        yield client
