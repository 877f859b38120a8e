"""The index is made anew under writes: nothing is lost, and searches go on being answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli.commands import app as command_line
from pipeline.embedded import Plan, Stack
from pipeline.kafka.admin import asked
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.records import Record, event_id_in
from pipeline.kafka.replaying import replayed
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.verifying.repairing import mending
from producers.client import MemoryClient
from producers.receipts import Receipt
from schemas.topics import ENRICHED
from tests.conftest import running
from tests.flow.owned import OWNER, UPSTREAM, stages

pytestmark = pytest.mark.connected


@pytest.fixture(scope="module")
async def stack_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("rebuilt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_MEMORY_HOME", str(home))
        async with running(Plan(data=home / "data")) as stack:
            yield stack


async def command(stack: Stack, *arguments: str) -> tuple[int, dict[str, Any]]:
    """As in a shell; in a thread, for it brings an event loop of its own."""
    told = [*arguments, "--json", "--data", str(stack.data)]
    result: Result = await asyncio.to_thread(CliRunner().invoke, command_line, told)
    assert result.stdout, result.output
    return result.exit_code, json.loads(result.stdout)


class Busy:
    """Somebody who writes and searches all the time."""

    def __init__(self, memory: MemoryClient, user_id: str) -> None:
        self.receipts: list[Receipt] = []
        self.searches = 0
        self._memory, self._user_id = memory, user_id
        self._until = asyncio.Event()

    async def __aenter__(self) -> "Busy":
        self._at_work = asyncio.gather(self._write(), self._search())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._until.set()
        await self._at_work

    async def _write(self) -> None:
        while not self._until.is_set():
            n = len(self.receipts)
            receipt = await self._memory.remember(
                f"Note {n} about cycling", user_id=self._user_id, memory_id=f"m{n}"
            )
            self.receipts.append(receipt)
            await asyncio.sleep(0.02)

    async def _search(self) -> None:
        """The first memory is there from the beginning: it is always found."""
        while not self._until.is_set():
            found = await self._memory.search(
                "The very first", user_id=f"{self._user_id}-first", timeout_s=15
            )
            assert [hit.text for hit in found.hits] == ["The very first"]
            self.searches += 1
            await asyncio.sleep(0.01)


async def say_it_twice(stack: Stack, memory: MemoryClient, user_id: str) -> None:
    """One of two equal memories is put away."""
    texts = [{"text": "The gate code is 4471", "user_id": user_id} for _ in range(2)]
    await memory.stored(await memory.remember_many(texts), timeout_s=60)
    code, told = await command(stack, "consolidate", "--user", user_id, "--yes")
    assert code == 0, told


@pytest.mark.parametrize("source", ["log", "record"])
async def test_a_rebuild_under_writes_loses_nothing_and_silences_nobody(
    stack_of_its_own: Stack, source: str
) -> None:
    stack = stack_of_its_own
    folders = {path.name for path in stack.qdrant_path.glob("index*")}
    async with (
        stages(stack, (*UPSTREAM, "lifecycle", *OWNER, "tier_writer")),
        MemoryClient(stack.kafka_bootstrap_servers) as memory,
    ):
        first = await memory.remember("The very first", user_id=f"{source}-first")
        await first.stored(timeout_s=120)
        await say_it_twice(stack, memory, f"{source}-twice")
        async with Busy(memory, source) as busy:
            while len(busy.receipts) < 50:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            gone = await memory.forget("m3", user_id=source)
            code, told = await command(stack, "rebuild", "--from", source)
            before_the_end = len(busy.receipts)
            await asyncio.sleep(1)
        assert (code, told["equal"]) == (0, True), told
        await memory.stored(busy.receipts, timeout_s=60)
        await gone.stored(timeout_s=60)
        assert (await command(stack, "verify"))[1]["equal"]
        found = [
            await memory.search(f"Note {n} about cycling", user_id=source, limit=100)
            for n in (0, before_the_end)
        ]
        ids = {hit.memory_id for each in found for hit in each.hits}
        assert {"m0", f"m{before_the_end}"} <= ids
        assert "m3" not in ids
        (one,) = (await memory.search("the gate", user_id=f"{source}-twice")).hits
        assert len(one.consolidated) == 1, "what was put away came back"
        assert busy.searches > 20
    after = {path.name for path in stack.qdrant_path.glob("index*")}
    assert len(after) == 1
    assert after != folders


async def test_a_rebuild_without_stages_is_taken_up_by_the_next_ones(
    stack_of_its_own: Stack,
) -> None:
    stack = stack_of_its_own
    code, told = await command(stack, "rebuild", "--from", "record")
    assert (code, told["equal"]) == (0, True), told
    async with (
        stages(stack, (*UPSTREAM, *OWNER)),
        MemoryClient(stack.kafka_bootstrap_servers) as memory,
    ):
        found = await memory.search("The very first", user_id="log-first")
        assert [hit.text for hit in found.hits] == ["The very first"]


async def in_log(stack: Stack) -> Sequence[Record]:
    """What memory.enriched tells from its beginning."""
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    async with aclosing(replayed(kafka, ENRICHED.under("memory"))) as batches:
        return [record async for batch in batches for record in batch.records]


def of_event(records: Sequence[Record], event_id: UUID) -> Sequence[Record]:
    return [record for record in records if event_id_in(record) == event_id]


async def compact_at_once(stack: Stack) -> None:
    """Has Kafka compact memory.enriched all the time: what it may do later, it does now."""
    settings = {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": "0",
        "min.cleanable.dirty.ratio": "0",
        "segment.ms": "500",
    }
    topic = ConfigResource(ConfigResourceType.TOPIC, ENRICHED.under("memory"), settings)
    async with asked(KafkaConnection(stack.kafka_bootstrap_servers)) as admin:
        told: Any = await admin.alter_configs([topic])
    assert [resource[0] for answer in told for resource in answer.resources] == [0]


async def compacted(stack: Stack, memory: MemoryClient, *gone: UUID) -> None:
    """Returns when the log tells of these events no more. Only closed segments are compacted."""
    await compact_at_once(stack)
    while {event_id_in(record) for record in await in_log(stack)} & set(gone):
        filler = [{"text": f"Filler {n}", "user_id": "filler"} for n in range(50)]
        await memory.stored(await memory.remember_many(filler), timeout_s=60)
        await asyncio.sleep(1)


async def test_what_was_forgotten_stays_so_though_the_log_was_compacted(
    stack_of_its_own: Stack,
) -> None:
    stack = stack_of_its_own
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)

    async def found(user_id: str) -> list[str]:
        answer = await memory.search("The secret", user_id=user_id, timeout_s=5)
        return [hit.text for hit in answer.hits]

    async def never_found() -> None:
        while True:
            assert await found("teller") == await found("leaver") == []
            await asyncio.sleep(0.05)

    async with (
        stages(stack, (*UPSTREAM, *OWNER)),
        MemoryClient(stack.kafka_bootstrap_servers) as memory,
        mending(kafka, "memory", RecordsInMemory()) as mend,
    ):
        secret: dict[str, Any] = {"text": "The secret", "idempotency_key": "once"}
        said = await memory.remember(**secret, user_id="teller")
        forgotten = await memory.forget(said.memory_id, user_id="teller")
        again = await memory.remember(**secret, user_id="teller")
        former = await memory.forget_user("leaver")
        told = await memory.remember("The secret", user_id="leaver")
        latter = await memory.forget_user("leaver")
        for receipt in (said, forgotten, again, former, told, latter):
            await receipt.stored(timeout_s=120)
        # As a dead letter that is redriven: it replaces the later forgetting, which has the same key.
        await mend.from_log(of_event(await in_log(stack), former.event_id))
        await compacted(stack, memory, said.event_id, told.event_id, latter.event_id)
        assert not any(b"The secret" in (each.value or b"") for each in await in_log(stack))
        watching = asyncio.create_task(never_found())
        code, result = await command(stack, "rebuild")
        assert (code, result["equal"], result["mended"]) == (0, True, 2), result
        assert not watching.done()
        watching.cancel()
        assert await found("teller") == await found("leaver") == []
