"""The commands, on the stream that they find by themselves."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli.commands import app
from pipeline.embedded import Stack

pytestmark = pytest.mark.connected


async def command(*arguments: str) -> Result:
    """As in a shell; in a thread, for it brings an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def told(*arguments: str) -> Any:
    result = await command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_a_memory_is_added_found_revised_and_forgotten(stream: Stack):
    user = ("--user", "shell")
    added = await told("add", "I love spicy Thai food", *user, "--metadata", "source=chat")
    answer = await told("search", "dinner ideas", *user, "--metadata", "source=chat")
    assert [hit["memory_id"] for hit in answer["hits"]] == [added["memory_id"]]
    await told("revise", added["memory_id"], "I gave up spicy food", *user)
    assert (await told("get", added["memory_id"], *user))["text"] == "I gave up spicy food"
    await told("forget", added["memory_id"], *user)
    assert (await told("search", "dinner ideas", *user))["hits"] == []
    assert (await command("get", added["memory_id"], *user)).exit_code == 1


async def test_a_file_is_imported_and_counted(stream: Stack, tmp_path: Path):
    before = await told("status")
    rows = [{"id": str(n), "text": f"Note {n} about cycling", "run_id": "r"} for n in range(40)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    result = await command("import", str(file), "--user", "rider", "--batch", "15", "--json")
    assert result.exit_code == 1
    count = json.loads(result.stdout)
    assert (count["accepted"], count["rejected"], count["stored"]) == (40, 1, 40)
    after = await told("status")
    assert after["record"] == after["index"] == before["record"] + 40
    assert after["ok"]
    assert (await command("forget-user", "rider", "--yes")).exit_code == 0
    assert (await told("status"))["index"] == before["index"]


async def test_the_demo_follows_mem0_and_finds_what_it_should(stream: Stack):
    result = await command("demo", "--no-mem0", "--data", str(stream.data))
    assert result.exit_code == 0, result.output
    assert "linh: 67 added, 0 updated, 0 deleted, 0 errors" in result.stdout
    assert "all that were expected were among the first three 15 times" in result.stdout
    changed, deleted = result.stdout.split("Delete in Mem0")
    assert "linh: 0 added, 1 updated, 0 deleted, 0 errors" in changed
    assert "16 June" in changed.rpartition("the same question")[2]
    assert "amara: 0 added, 0 updated, 1 deleted, 0 errors" in deleted
    assert "4471" not in deleted.rpartition("the same question")[2]
