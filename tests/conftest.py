"""What tests share: a stack of real servers, started once, and topics of each test's own."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from xdist.scheduler import LoadScopeScheduling

from pipeline import embedded
from pipeline.embedded import Plan, Stack
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.topics import ensure_topics

_ONE_STACK = ("connected", "flow", "mem0")
"""Folders whose tests share a stack: they go to one worker, so that it is started once."""
_SPREAD = ("fuzz", "simulation")
"""Folders of long tests that share nothing: each goes where there is room."""


class _Shared(LoadScopeScheduling):
    """What shares something goes to the same worker. (pytest-xdist's groups do nothing on pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = path.split("/")[1]
        if folder in _SPREAD:
            return nodeid
        return folder if folder in _ONE_STACK else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Shared:
    """Says which tests go to which worker."""
    return _Shared(config, log)


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Kafka, Postgres and Valkey, really running; no stages."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_MEMORY_HOME", str(home))
        async with running(Plan(data=home / "data")) as ready:
            yield ready


def running(plan: Plan) -> AbstractAsyncContextManager[Stack]:
    """A stack for the time of a block: `async with running(plan) as stack`."""
    return embedded.running(plan, on_progress=lambda _: None)


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
