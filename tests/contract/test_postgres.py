"""What only Postgres must do: survive its troubles, its writers at once, and leave no trace of a text."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from pipeline.domain.identity import memory_key, tombstone_id
from pipeline.domain.versions import Outcome, erased, stamp
from pipeline.errors import Refused, Unavailable
from pipeline.ports import Fingerprint
from pipeline.stores import postgres_writing
from pipeline.stores.postgres import PostgresRecords, migrate, open_records
from pipeline.stores.sql import past, telling, writing
from pipeline.stores.states import MOST_NEIGHBOURS
from schemas.events import Enriched, MemoryCaptured, MemoryForgotten, Said
from tests.builders import enriched, fingerprints, forgotten, named, user_forgotten

Psql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def records(dsn: str) -> AsyncIterator[PostgresRecords]:
    """The record, empty."""
    opened = await open_records(dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def psql(dsn: str) -> AsyncIterator[Psql]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def written(records: PostgresRecords, batch: Sequence[Enriched]) -> Sequence[Outcome]:
    """Writes until it succeeds, as the delivery layer does."""
    while True:
        try:
            return await records.write(batch)
        except Unavailable:
            await asyncio.sleep(0.05)


# Opening


async def test_nobody_there_is_unavailable_and_the_password_stays_secret(free_port: int) -> None:
    with pytest.raises(Unavailable, match=f"127.0.0.1:{free_port}") as caught:
        await open_records(f"postgresql://user:hunter2@127.0.0.1:{free_port}/db")
    assert "hunter2" not in str(caught.value)


async def test_an_unknown_database_is_refused(postgres: str) -> None:
    with pytest.raises(Refused, match="POSTGRES_DSN"):
        await open_records(postgres.replace("/postgres?", "/nowhere?"))


async def test_an_unknown_role_is_refused(postgres: str) -> None:
    with pytest.raises(Refused, match="POSTGRES_DSN"):
        await open_records(postgres.replace("//postgres:", "//nobody:"))


@pytest.mark.parametrize("dsn", ["hunter2", "mysql://user:hunter2@host/db", ""])
async def test_what_is_no_address_is_refused_without_repeating_it(dsn: str) -> None:
    with pytest.raises((Refused, Unavailable)) as caught:
        await open_records(dsn)
    assert "hunter2" not in str(caught.value)


async def test_any_number_of_writers_may_start_at_once(dsn: str) -> None:
    opened = await asyncio.gather(*(open_records(dsn) for _ in range(6)))
    assert await opened[0].write([enriched()]) == ["stored"]
    assert await opened[5].count() == 1
    await asyncio.gather(*(each.close() for each in opened))


async def test_a_record_of_a_later_version_is_refused(dsn: str, psql: Psql) -> None:
    await migrate(dsn)
    await psql.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(Refused, match="later version"):
        await open_records(dsn)


async def test_its_connections_say_whose_they_are(dsn: str, psql: Psql) -> None:
    opened = await open_records(dsn, application_name="record_writer")
    names = await psql.fetch("select application_name from pg_stat_activity")
    assert "record_writer" in {row["application_name"] for row in names}
    await opened.close()


# Asking


@pytest.mark.parametrize(
    ("asked", "arguments"), [(telling.NEWEST, ("alice",)), (past.NEWER, (19_950, "alice", 1_001))]
)
async def test_what_is_newest_of_a_user_is_found_without_reading_all_of_them(
    dsn: str, psql: Psql, asked: str, arguments: Sequence[Any]
) -> None:
    await migrate(dsn)
    await psql.execute(
        """
        insert into memories (
            key, user_id, memory_id, precedence, tie, version, event_id, published_at, forgotten,
            content_hash, text, occurred_at, metadata, domain, topics, importance, model
        )
        select
            gen_random_uuid(), case when n % 10 = 0 then 'bob' else 'alice' end, 'm' || n, n, 0, n,
            gen_random_uuid(), now(), false, '', 'said', now(), '{}', 'other', '{}', 0.5, 'a model'
        from generate_series(1, 20000) n
        """
    )
    await psql.execute("vacuum analyze memories")
    plan = await analyzed(psql, asked, *arguments)
    assert "memories_by_version" in json.dumps(plan)
    assert blocks_read(plan) < 20


async def test_who_is_beside_a_memory_is_found_without_reading_all_of_its_conversation(
    dsn: str, psql: Psql
) -> None:
    await migrate(dsn)
    await psql.execute(
        """
        insert into memories (
            key, user_id, memory_id, precedence, tie, version, event_id, published_at, forgotten,
            content_hash, text, occurred_at, run_id, metadata, domain, topics, importance, model
        )
        select
            lpad(n::text, 32, '0')::uuid, 'alice', 'm' || n, n, 0, n, gen_random_uuid(), now(), false, '',
            'said', now() + n / 2 * interval '1 s', 'r', '{}', 'other', '{}', 0.5, 'a model'
        from generate_series(1, 20000) n
        """
    )
    await psql.execute("vacuum analyze memories")
    asked: list[list[Any]] = [[UUID(int=0x10000)], [], [], [], []]
    plan = await analyzed(psql, telling.CONTEXTS, *asked)
    assert "memories_of_a_run" in json.dumps(plan)
    assert plan["Actual Rows"] == 5
    assert blocks_read(plan) < 200


async def test_who_was_told_of_a_text_is_found_without_reading_all_of_a_user(
    dsn: str, psql: Psql
) -> None:
    await migrate(dsn)
    await psql.execute(
        """
        insert into memories (
            key, user_id, memory_id, precedence, tie, version, event_id, published_at, forgotten,
            content_hash, text, occurred_at, metadata, domain, topics, importance, model, preceding
        )
        select
            lpad(n::text, 32, '0')::uuid, 'alice', 'm' || n, n, 0, n, gen_random_uuid(), now(), false, '',
            'turn ' || n, now(), '{}', 'other', '{}', 0.5, 'a model',
            jsonb_build_array(jsonb_build_object('text', 'turn ' || n - 1))
        from generate_series(1, 20000) n
        """
    )
    await psql.execute("vacuum analyze memories")
    late = {"key": str(UUID(int=0x10000)), "user_id": "alice", "text": "turn 10000"}
    plan = await analyzed(psql, writing.FORGET_PRECEDING, [], json.dumps([late]), "[]")
    assert "memories_told" in json.dumps(plan)
    assert blocks_read(plan) < 200
    emptied = await psql.fetch("select memory_id from memories where preceding = '[]'")
    assert [row["memory_id"] for row in emptied] == ["m10001"]


@pytest.mark.parametrize(
    ("asked", "beside"), [(writing.FORGET_PRECEDING, ["[]", "[]"]), (writing.ERASE_STATES, [])]
)
async def test_forgetting_once_more_does_not_compare_all_earlier_forgettings(
    records: PostgresRecords, psql: Psql, asked: str, beside: Sequence[str]
) -> None:
    await records.write([enriched(memory_id="m"), forgotten("m")])
    await psql.execute(
        """
        insert into memory_states
            (key, event_id, precedence, tie, version, published_at, forgotten, text)
        select
            case when n > 1000 then gen_random_uuid() else $1 end, gen_random_uuid(), n, 0, n, now(),
            n <= 1000, case when n > 1000 then 'said' end
        from generate_series(1, 20000) n
        """,
        memory_key("alice", "m"),
    )
    await psql.execute("vacuum analyze memory_states")
    plan = await analyzed(psql, asked, [memory_key("alice", "m")], *beside)
    assert rows_looked_at(plan) < 5_000


async def test_who_goes_from_place_to_place_leaves_each_behind_once(
    records: PostgresRecords, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [
        enriched(memory_id=f"m{number}", run_id="r", version=1 + number) for number in range(3)
    ]
    moves = [enriched(memory_id="m", run_id="r", version=50 + number) for number in range(9)]
    for changes in (others, *([move] for move in moves)):
        await records.write(changes)
    kept = "select neighbours from memories where memory_id = 'm'"
    beside = {memory_key("alice", name) for name in ("m1", "m2")}
    assert sorted(await psql.fetchval(kept)) == sorted(beside)
    monkeypatch.setattr(
        writing, "UPSERT", writing.UPSERT.replace(f"limit {MOST_NEIGHBOURS}", "limit 1")
    )
    await records.write([enriched(memory_id="m", run_id="r", version=80)])
    assert len(await psql.fetchval(kept)) == 1


async def test_ids_as_long_as_they_may_be_are_kept(records: PostgresRecords) -> None:
    random = Random(1)
    user_id, memory_id, run_id = (
        "".join(chr(random.randrange(0x20000, 0x2FFFD)) for _ in range(256)) for _ in range(3)
    )
    ids = {"user_id": user_id, "memory_id": memory_id, "run_id": run_id}
    told = enriched("it", **ids, preceding=(Said(text="before"),))
    assert await written(records, [told]) == ["stored"]
    assert await records.get(user_id, memory_id)


# Troubles


async def test_a_lost_connection_is_unavailable_and_the_batch_can_be_repeated(
    records: PostgresRecords, psql: Psql
) -> None:
    await records.write([enriched(memory_id="m", version=1)])
    batch = [enriched(memory_id="n"), enriched("newer", memory_id="m", version=2)]
    async with psql.transaction():
        await psql.execute("select from memories for update")
        writing = asyncio.ensure_future(records.write(batch))
        await _terminate_whoever_waits(psql)
        with pytest.raises(Unavailable):
            await writing
    assert await records.count() == 1
    assert await written(records, batch) == ["stored", "stored"]
    assert await records.count() == 2


async def _terminate_whoever_waits(psql: Psql) -> None:
    waiting = """
        select pg_terminate_backend(pid) from pg_stat_activity
        where pid <> pg_backend_pid() and wait_event_type = 'Lock'
    """
    for _ in range(500):
        if await psql.fetch(waiting):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits")


async def test_what_takes_too_long_is_unavailable(dsn: str, psql: Psql) -> None:
    records = await open_records(dsn, timeout_s=0.5)
    await records.write([enriched(memory_id="m", version=1)])
    async with psql.transaction():
        await psql.execute("select from memories for update")
        with pytest.raises(Unavailable, match="TimeoutError"):
            await records.write([enriched(memory_id="m", version=2)])
    assert await written(records, [enriched(memory_id="m", version=2)]) == ["stored"]
    await records.close()


async def test_a_server_that_only_reads_is_unavailable(dsn: str) -> None:
    await migrate(dsn)
    records = await open_records(f"{dsn}&default_transaction_read_only=on")
    assert await records.count() == 0
    with pytest.raises(Unavailable, match="ReadOnly"):
        await records.write([enriched()])
    await records.close()


async def test_a_batch_is_written_whole_or_not_at_all(records: PostgresRecords, psql: Psql) -> None:
    await psql.execute("alter table memories add check (memory_id <> 'bad')")
    batch = [enriched(), forgotten("gone"), enriched(memory_id="bad")]
    with pytest.raises(asyncpg.CheckViolationError):
        await records.write(batch)
    for table in ("memories", "memory_states", "forgotten_users"):
        assert await psql.fetchval(f"select count(*) from {table}") == 0


# Several writers


async def test_a_write_of_what_was_newest_once_changes_nothing(
    records: PostgresRecords, psql: Psql
) -> None:
    """A consumer read, lost its partition, and writes only now."""
    await records.write([enriched("newer", memory_id="m", version=2)])
    place = stamp(enriched(version=1))
    row = {
        "key": str(memory_key("alice", "m")),
        "precedence": place.precedence,
        "tie": place.tie,
        "text": "late",
    }
    await psql.execute(writing.UPSERT, json.dumps([_row(row)]))
    memory = await records.get("alice", "m")
    assert memory is not None
    assert memory.text == "newer"


def _row(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "user_id": "alice",
        "memory_id": "m",
        "version": 1,
        "event_id": str(enriched().event_id),
        "published_at": "2026-05-01T12:00:00Z",
        "forgotten": False,
        "content_hash": "",
        "context": 0,
    } | fields


async def test_writers_of_the_same_memories_end_with_the_newest(dsn: str) -> None:
    writers = [await open_records(dsn) for _ in range(3)]
    names = [f"m{i}" for i in range(12)]
    events = [enriched(f"{v}", memory_id=name, version=v) for name in names for v in range(1, 9)]

    async def write_all(writer: PostgresRecords, random: Random) -> None:
        order = random.sample(events, len(events))
        for begin in range(0, len(order), 16):
            await written(writer, order[begin : begin + 16])

    await asyncio.gather(*(write_all(writer, Random(i)) for i, writer in enumerate(writers)))
    kept = [await writers[0].get("alice", name) for name in names]
    assert [memory.text for memory in kept if memory] == ["8"] * len(names)
    for name in names:
        assert len(await writers[0].history("alice", name)) == 8
    await asyncio.gather(*(writer.close() for writer in writers))


async def test_a_user_is_forgotten_while_others_write(dsn: str) -> None:
    """Nothing that is not newer survives, on whichever side of the forgetting it was written."""
    writers = [await open_records(dsn) for _ in range(3)]
    events = [enriched(memory_id=f"m{i}", version=5 if i % 2 else 20) for i in range(120)]

    async def write_some(writer: PostgresRecords, mine: Sequence[Enriched]) -> None:
        for begin in range(0, len(mine), 4):
            await written(writer, mine[begin : begin + 4])

    async def forget(writer: PostgresRecords, partition: int) -> None:
        await asyncio.sleep(0.02)
        event = user_forgotten(version=10, partition=partition, partitions=2)
        await written(writer, [event])

    await asyncio.gather(
        write_some(writers[0], events[0::2]),
        write_some(writers[1], events[1::2]),
        forget(writers[2], 0),
        forget(writers[1], 1),
    )
    assert await writers[0].count("alice") == 60
    assert await writers[0].get("alice", "m0") is not None
    assert await writers[0].get("alice", "m1") is None
    await asyncio.gather(*(writer.close() for writer in writers))


# A user is erased page by page


async def test_what_a_dead_writer_left_of_a_forgotten_user_is_told_nobody(
    records: PostgresRecords, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = enriched("secret", memory_id="m", version=5, run_id="r", metadata={"a": "secret"})
    survivor = enriched(memory_id="later", version=20, run_id="r")
    forgetting = user_forgotten(version=10)
    await _die_before_erasing(records, [old, survivor, forgetting], monkeypatch)
    assert await psql.fetchval("select text from memories where memory_id = 'm'") == "secret"
    key = memory_key("alice", "m")
    assert await records.get("alice", "m") is None
    assert await records.is_forgotten("alice", "m")
    assert await records.count("alice") == await records.count() == 1
    assert [entry.text for entry in await records.history("alice", "m")] == [None, None]
    assert await records.publishable([key]) == [
        MemoryForgotten(
            memory_id="m",
            event_id=tombstone_id(forgetting.event_id, key),
            **forgetting.model_dump(include={"user_id", "version", "published_at"}),
        )
    ]
    (again,) = await records.publishable([memory_key("alice", "later")])
    assert isinstance(again, MemoryCaptured)
    assert again.preceding == ()
    gone = Fingerprint(key, erased(10), "")
    assert await records.fingerprints_of([key]) == [gone]
    assert gone in await records.page(None, 100)
    assert gone in await fingerprints(records)


async def test_what_a_dead_writer_left_of_a_forgotten_user_cannot_be_written_back(
    records: PostgresRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = enriched(memory_id="m", version=5)
    await _die_before_erasing(records, [old, user_forgotten(version=10)], monkeypatch)
    late = enriched(memory_id="m", version=9)
    yielding = enriched(memory_id="m", version=11, if_absent=True)
    assert await records.write([old, late, yielding]) == ["forgotten"] * 3
    assert await records.get("alice", "m") is None


async def test_a_user_is_forgotten_when_all_is_erased(
    records: PostgresRecords, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_writing, "_ERASED_AT_ONCE", 2)
    olds = [enriched("secret", memory_id=f"m{i}", version=5) for i in range(5)]
    forgetting = user_forgotten(version=10)
    await _die_before_erasing(records, [*olds, forgetting], monkeypatch)
    asked = [named(forgetting), named(olds[0])]
    assert await records.outcomes("alice", asked) == [None, "forgotten"]
    assert await records.write([enriched("anew", memory_id="m0", version=20)]) == ["stored"]
    assert await records.write([user_forgotten(version=7)]) == ["superseded"]
    assert await records.outcomes("alice", asked) == ["stored", "forgotten"]
    assert await records.write([forgetting]) == ["stored"]
    for table in ("memories", "memory_states"):
        rows = await psql.fetch(f"select t::text as row from {table} t")
        assert "secret" not in " ".join(row["row"] for row in rows)
    assert await records.count("alice") == 1


async def _die_before_erasing(
    records: PostgresRecords, changes: Sequence[Enriched], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> None:
        raise Unavailable("the process is gone")

    with monkeypatch.context() as dying:
        dying.setattr(postgres_writing, "_erase", dies)
        with pytest.raises(Unavailable, match="gone"):
            await records.write(changes)


# Nothing is left of what was forgotten


@pytest.mark.parametrize("forgetting", [forgotten("m", version=9), user_forgotten(version=9)])
@pytest.mark.parametrize("late", [False, True])
async def test_no_table_keeps_what_was_forgotten(
    records: PostgresRecords,
    psql: Psql,
    forgetting: Enriched,
    late: bool,
) -> None:
    secret: dict[str, Any] = {
        "speaker": "secret",
        "agent_id": "secret",
        "app_id": "secret",
        "run_id": "secret",
        "topics": ("secret",),
        "metadata": {"secret": "secret"},
    }
    secret["preceding"] = (Said(text="secret"),)
    states = [enriched("secret", memory_id="m", version=version, **secret) for version in (1, 2, 3)]
    if late:
        await records.write([states[0], forgetting])
        await records.write(states[1:])
    else:
        await records.write(states)
        await records.write([forgetting])
    for table in ("memories", "memory_states", "forgotten_users"):
        rows = await psql.fetch(f"select t::text as row from {table} t")
        assert "secret" not in " ".join(row["row"] for row in rows)
    assert len(await records.history("alice", "m")) == 4


async def analyzed(psql: Psql, asked: str, *arguments: Any) -> dict[str, Any]:
    """What Postgres did for a statement."""
    (told,) = json.loads(
        await psql.fetchval(f"explain (analyze, buffers, format json) {asked}", *arguments)
    )
    return told["Plan"]


def blocks_read(plan: dict[str, Any]) -> int:
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def rows_looked_at(plan: dict[str, Any]) -> float:
    """Over all steps, those that were left out, too."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    own += plan.get("Rows Removed by Join Filter", 0)
    return own * plan["Actual Loops"] + sum(map(rows_looked_at, plan.get("Plans", [])))
