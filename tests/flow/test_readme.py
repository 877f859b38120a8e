"""The README's Python runs as it stands there, but for the address."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from pipeline.embedded import Stack
from producers.client import MemoryClient

pytestmark = pytest.mark.connected

ADDRESS = "localhost:9092"
README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SNIPPETS = [snippet for snippet in PYTHON if ADDRESS in snippet]
SAYS = ["I love spicy Thai food 0.", "We roll back with one command"]
"""Something of what each snippet prints, in their order."""


@pytest.mark.parametrize(
    ("snippet", "says"), [*zip(SNIPPETS, SAYS, strict=True)], ids=["one", "many"]
)
async def test_a_snippet_runs(
    snippet: str, says: str, stream: Stack, memory: MemoryClient, project: Path
) -> None:
    # As after `hybrid-memory up`, which returns when all stages serve.
    first = await memory.remember("Good morning", user_id="readme", idempotency_key="first")
    await first.stored(timeout_s=240)
    program = snippet.replace(ADDRESS, stream.kafka_bootstrap_servers)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program),
        cwd=project,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    assert says in out.decode()
