"""What was done to the index behind the stream's back is told, and mended."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import qdrant_edge as edge
from click.testing import Result
from typer.testing import CliRunner

from pipeline import app
from pipeline.cli.commands import app as command_line
from pipeline.domain.identity import memory_key, user_key
from pipeline.embedded import Plan, Stack
from pipeline.settings import Settings
from pipeline.stores.points import Point
from pipeline.stores.qdrant_edge import EdgePoints
from pipeline.stores.replaceable import ReplaceableIndex
from producers.client import MemoryClient
from tests.conftest import running
from tests.flow import owned
from tests.flow.owned import stages

pytestmark = pytest.mark.connected

MEMORIES = 40
UPSTREAM, OWNER = (*owned.UPSTREAM, "lifecycle"), (*owned.OWNER, "tier_writer")


@pytest.fixture(scope="module")
async def stack_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("verified")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_MEMORY_HOME", str(home))
        async with running(Plan(data=home / "data")) as stack:
            yield stack


async def verify(stack: Stack, *arguments: str) -> tuple[int, dict[str, Any]]:
    """As in a shell; in a thread, for it brings an event loop of its own."""
    command = ["verify", "--json", "--data", str(stack.data), *arguments]
    result: Result = await asyncio.to_thread(CliRunner().invoke, command_line, command)
    assert result.stdout, result.output
    return result.exit_code, json.loads(result.stdout)


async def remembered(memory: MemoryClient) -> None:
    receipts = await memory.remember_many(
        {"text": f"Note {n} about cycling", "user_id": "rider", "memory_id": f"m{n}"}
        for n in range(MEMORIES)
    )
    await memory.stored(receipts, timeout_s=120)
    for forgetting in [
        await memory.forget("m1", user_id="rider"),
        await memory.remember("Mine", user_id="leaver", memory_id="m"),
        await memory.forget_user("leaver"),
    ]:
        await forgetting.stored(timeout_s=60)
    # From now on they have a life.
    await memory.search("Note 3 about cycling", user_id="rider", limit=3, mode="lexical")


async def tamper(stack: Stack) -> None:
    """One lost, one altered, one brought back, a recall and a user's forgetting forgotten."""
    settings = Settings()
    where = app.addresses(settings, stack)
    async with app.open_ports(settings, where, ["vectors"]) as ports:
        index: ReplaceableIndex = ports["vectors"]
        points = index.current.points
        assert isinstance(points, EdgePoints)
        lost, gone, altered = (memory_key("rider", name) for name in ("m0", "m1", "m2"))
        there = await points.fetch([altered])
        delete(points, lost, gone, user_key("leaver"))
        unlive(points, memory_key("rider", "m3"))
        content: dict[str, Any] = {"content_hash": "0" * 32, "text": "Something else"}
        await points.put([Point(altered, there[altered] | content, None)])
        alive = there[altered] | content | {"memory_id": "m1", "version": 1, "precedence": 1}
        await points.put([Point(gone, alive, None)])
        await points.settle()


def delete(points: EdgePoints, *keys: UUID) -> None:
    points._shard.update(edge.UpdateOperation.delete_points(list(keys)))  # pyright: ignore[reportPrivateUsage]


def unlive(points: EdgePoints, key: UUID) -> None:
    points._shard.update(edge.UpdateOperation.delete_payload([key], ["life"]))  # pyright: ignore[reportPrivateUsage]


async def test_what_was_done_behind_the_streams_back_is_told_and_mended(
    stack_of_its_own: Stack,
) -> None:
    stack = stack_of_its_own
    async with stages(stack, UPSTREAM):
        async with (
            stages(stack, OWNER),
            MemoryClient(stack.kafka_bootstrap_servers) as memory,
        ):
            await remembered(memory)
            code, told = await verify(stack)
            assert (code, told["equal"], told["compared"]) == (0, True, MEMORIES + 2)
        await tamper(stack)
        # Nobody owns the index now: it is opened, not asked for.
        code, told = await verify(stack)
        assert code == 1
        kinds = {
            "missing_in_index": 1,
            "content_differs": 1,
            "resurrected_in_index": 1,
            "watermark_differs": 1,
            "tier_differs": 1,
        }
        assert told["kinds"] == kinds
        async with (
            stages(stack, OWNER),
            MemoryClient(stack.kafka_bootstrap_servers) as memory,
        ):
            code, told = await verify(stack)
            assert (code, told["kinds"]) == (1, kinds)
            assert str(memory_key("rider", "m0")) in {each["key"] for each in told["first"]}
            code, told = await verify(stack, "--repair")
            assert (code, told["equal"], told["mended"], told["left_alone"]) == (0, True, 5, 0)
            found = await memory.search("Note 0 about cycling", user_id="rider", limit=100)
            texts = {hit.memory_id: hit.text for hit in found.hits}
            assert texts["m0"] == "Note 0 about cycling"
            assert texts["m2"] == "Note 2 about cycling"
            assert "m1" not in texts
            assert len(texts) == MEMORIES - 1


async def test_what_the_record_lost_comes_back_from_the_log(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    async with (
        stages(stack, (*UPSTREAM, *OWNER)),
        MemoryClient(stack.kafka_bootstrap_servers) as memory,
    ):
        receipt = await memory.remember("Kept", user_id="archivist", memory_id="kept")
        await receipt.stored(timeout_s=60)
        connection = await asyncpg.connect(stack.postgres_dsn)
        await connection.execute("delete from memories where user_id = 'archivist'")
        await connection.close()
        code, told = await verify(stack)
        kinds = {"missing_in_record": 1, "missing_in_record_but_in_log": 1}
        assert (code, told["kinds"]) == (1, kinds)
        code, told = await verify(stack, "--repair")
        assert (code, told["equal"], told["mended"]) == (0, True, 1)
        known = await memory.get("kept", user_id="archivist")
        assert known is not None
        assert known.text == "Kept"


async def test_what_was_accepted_and_is_not_in_the_log_is_told(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    async with MemoryClient(stack.kafka_bootstrap_servers) as memory:
        await memory.remember("On its way", user_id="waiter")
    code, told = await verify(stack, "--patience", "0.5")
    assert (code, told["equal"], told["unread"]) == (75, False, {"classifier": 1})
    async with stages(stack, (*UPSTREAM, *OWNER)):
        code, told = await verify(stack)
        assert (code, told["equal"], told["unread"]) == (0, True, {})
