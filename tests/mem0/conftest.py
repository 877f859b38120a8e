"""The stand-in behind a real server, and Mem0's own clients of it."""

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from pipeline.sources.mem0_sim.server import Mem0Sim, serving, stand_in

if TYPE_CHECKING:
    from mem0 import AsyncMemoryClient


@pytest.fixture(scope="session", autouse=True)
def quiet_mem0(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It phones home and writes to the home folder unless told otherwise before it is imported."""
    os.environ["MEM0_TELEMETRY"] = "False"
    os.environ["MEM0_DIR"] = str(tmp_path_factory.mktemp("mem0"))


@pytest.fixture
def sim() -> Mem0Sim:
    """A platform without memories, faults or lag."""
    made = stand_in(seed=1)
    made.memories.background_s = 0.0
    return made


@pytest.fixture
async def address(sim: Mem0Sim) -> AsyncIterator[str]:
    """Where the stand-in answers."""
    async with serving(sim) as url:
        yield url


@pytest.fixture
async def client(address: str) -> "AsyncIterator[AsyncMemoryClient]":
    """Mem0's asynchronous client of the stand-in."""
    import asyncio

    from mem0 import AsyncMemoryClient

    async with await asyncio.to_thread(AsyncMemoryClient, "a-key", address) as made:
        yield made
