"""The record: each memory's newest state in Postgres, and an audit trail of the states it had.

What is forgotten leaves its tombstone and nothing of its content, not in the audit trail either.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from pipeline.domain.identity import context_hash, memory_key
from pipeline.domain.tiers import Tiers
from pipeline.domain.versions import Outcome, erased, runs
from pipeline.ports import AuditEntry, Believed, Belonging, Changes, Fingerprint, Reading, TooMuch
from pipeline.stores.lives import decide_lives, looked_at, of_state
from pipeline.stores.postgres_writing import (
    LOCKS,
    forget_user,
    keep_lives,
    known_memories,
    lives_of,
    watermarks,
    write_memories,
)
from pipeline.stores.remedies import address_of, remedies
from pipeline.stores.rows import (
    believed_of,
    belonging_of,
    classified_of,
    fingerprint_of,
    gone_of,
    published_of,
    recorded_memory_of,
    recorded_of,
    user_forgotten_of,
    watermark_of,
)
from pipeline.stores.sql import lives, parts, past, telling
from pipeline.stores.states import history, named_user, outcome_of
from schemas.events import Enriched, Lived, MemoryForgotten, MemoryTiered, Published, UserForgotten
from schemas.search import EventRef, RecordedMemory

_MIGRATION_LOCK = -1
_CONNECTIONS = 4


async def open_records(
    dsn: str,
    *,
    application_name: str = "hybrid-memory",
    timeout_s: float = 30.0,
) -> "PostgresRecords":
    """The record at `dsn`, its tables made or brought up to date.

    No statement takes longer than `timeout_s`. Raises Unavailable, and Refused where Postgres lets us not
    in or was migrated by a later version of this program.
    """
    await migrate(dsn)
    address = address_of(dsn)
    with remedies(address):
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=timeout_s,
            command_timeout=timeout_s,
            server_settings={
                "application_name": application_name,
                # A writer that is frozen, or whose host is gone, must not keep its locks from the next one.
                "idle_in_transaction_session_timeout": f"{int(timeout_s * 1_000)}",
                # JSON tells moments in this zone; others are off by seconds in old times, which nobody reads.
                "timezone": "UTC",
                "tcp_keepalives_idle": "30",
                "tcp_keepalives_interval": "10",
                "tcp_keepalives_count": "3",
            },
        )
    return PostgresRecords(pool, address)


async def migrate(dsn: str) -> None:
    """Brings the tables up to date. Any number of processes may start at once: one does it, all wait."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool
    )
    with remedies(address_of(dsn)):
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    connection.execute(
        text("select pg_advisory_xact_lock(:space, :lock)"),
        {"space": LOCKS, "lock": _MIGRATION_LOCK},
    )
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


class PostgresRecords:
    """MemoryRecords over one pool of connections."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", address: str) -> None:
        self._pool, self._address = pool, address

    async def write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        with remedies(self._address):
            async with self._pool.acquire() as session:
                for run in runs(changes):
                    match run[0]:
                        case UserForgotten() as forgetting:
                            outcomes.append(await forget_user(session, forgetting))
                        case _:
                            outcomes.extend(await write_memories(session, run))
        return outcomes

    async def get(self, user_id: str, memory_id: str) -> RecordedMemory | None:
        with remedies(self._address):
            row = await self._pool.fetchrow(telling.GET, memory_key(named_user(user_id), memory_id))
        return recorded_memory_of(row) if row else None

    async def live(self, events: Sequence[Lived], tiers: Tiers) -> Sequence[MemoryTiered | None]:
        keys = list(looked_at(events))
        with remedies(self._address):
            async with self._pool.acquire() as session, session.transaction():
                # Locked: who forgets one of them waits, and then takes its life along.
                there = await session.fetch(lives.LIVING_LOCKED, keys)
                known = await lives_of(session, keys)
                living = {row["key"]: row["precedence"] for row in there}
                decided = decide_lives(events, known, living, tiers)
                await keep_lives(session, decided.writes)
        return decided.told

    async def lives(self, after: UUID | None, limit: int) -> Sequence[tuple[UUID, MemoryTiered]]:
        with remedies(self._address):
            rows = await self._pool.fetch(lives.LIVES, after or UUID(int=0), limit)
        told = [(row, MemoryTiered.model_validate_json(row["told"])) for row in rows]
        return [(row["key"], of_state(each, row["precedence"])) for row, each in told]

    async def remembered_anew(self, after: UUID | None, limit: int) -> Sequence[MemoryForgotten]:
        with remedies(self._address):
            rows = await self._pool.fetch(lives.REMEMBERED_ANEW, after or UUID(int=0), limit)
        return [MemoryForgotten(**row) for row in rows]

    async def belongings(
        self, user_id: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[Belonging]:
        whose = None if user_id is None else named_user(user_id)
        with remedies(self._address):
            rows = await self._pool.fetch(lives.BELONGINGS, whose, *(after or ("", "")), limit)
        return [belonging_of(row) for row in rows]

    async def past(
        self, user_id: str, version: int, *, limit: int, among: int, most_bytes: int
    ) -> Sequence[Believed] | TooMuch:
        named_user(user_id)
        with remedies(self._address):
            async with self._pool.acquire() as session:
                # Each of them is looked up: some 8 microseconds, whether it was there then or not.
                if await session.fetchval(past.NEWER, version, user_id, among + 1) > among:
                    return "written"
                rows = await session.fetch(past.PAST, version, user_id, limit, most_bytes)
        if rows and rows[-1]["said"] > most_bytes:
            return "said"
        # Thousands, with much metadata, take a tenth of a second.
        return await asyncio.to_thread(lambda: [believed_of(row) for row in rows])

    async def state_at(self, user_id: str, memory_id: str, version: int) -> Believed | None:
        key = memory_key(named_user(user_id), memory_id)
        with remedies(self._address):
            row = await self._pool.fetchrow(past.PAST_OF, version, key)
        return believed_of(row) if row else None

    async def is_forgotten(self, user_id: str, memory_id: str) -> bool:
        with remedies(self._address):
            key = memory_key(named_user(user_id), memory_id)
            return await self._pool.fetchval(telling.IS_FORGOTTEN, key)

    async def forgotten_until(self, user_id: str, memory_id: str) -> int:
        with remedies(self._address):
            key = memory_key(named_user(user_id), memory_id)
            return await self._pool.fetchval(telling.FORGOTTEN_UNTIL, key, user_id)

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        named_user(user_id)
        # The forgetting of a user is no memory's: nothing is kept under its key.
        keys = [memory_key(user_id, event.memory_id or "") for event in events]
        with remedies(self._address):
            async with self._pool.acquire() as session:
                marks = await session.fetch(parts.WATERMARKS, [user_id])
                known = await known_memories(session, parts.KNOWN, keys)
                audited = await session.fetch(
                    telling.AUDITED, keys, [event.event_id for event in events]
                )
        mark = watermark_of(marks[0]) if marks else None
        erased_until = marks[0]["erased_until"] if marks else 0
        recorded = {(row["key"], row["event_id"]) for row in audited}
        return [
            # A user's forgetting is done when all of it is erased.
            ("stored" if event.version <= erased_until else None)
            if event.memory_id is None
            else outcome_of(event, known.get(key), mark, was_read=(key, event.event_id) in recorded)
            for event, key in zip(events, keys, strict=True)
        ]

    async def newest(self, user_id: str) -> int:
        with remedies(self._address):
            return await self._pool.fetchval(telling.NEWEST, named_user(user_id))

    async def history(self, user_id: str, memory_id: str) -> Sequence[AuditEntry]:
        key = memory_key(named_user(user_id), memory_id)
        with remedies(self._address):
            async with self._pool.acquire() as session:
                rows = await session.fetch(telling.HISTORY, key)
                marks = await watermarks(session, [user_id])
        return history([recorded_of(row) for row in rows], marks.get(user_id))

    async def count(self, user_id: str | None = None) -> int:
        if user_id is not None:
            named_user(user_id)
        with remedies(self._address):
            return await self._pool.fetchval(telling.COUNT, user_id)

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        return await self._fingerprints(telling.PAGE, after or UUID(int=0), limit)

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        return await self._fingerprints(telling.FINGERPRINTS_OF, list(keys))

    async def _fingerprints(self, statement: str, *arguments: Any) -> Sequence[Fingerprint]:
        with remedies(self._address):
            rows = await self._pool.fetch(statement, *arguments)
        return [fingerprint_of(row) for row in rows]

    async def publishable(self, keys: Sequence[UUID]) -> Sequence[Published]:
        with remedies(self._address):
            async with self._pool.acquire() as session:
                marks = await session.fetch(telling.MARKS_OF, list(keys))
                rows = await session.fetch(telling.PUBLISHABLE, list(keys))
        return [*map(user_forgotten_of, marks), *map(published_of, rows)]

    async def gone_with(
        self, forgetting: UserForgotten, after: str, limit: int
    ) -> Sequence[MemoryForgotten]:
        place = erased(forgetting.version).stamp
        of_whom = (forgetting.user_id, after, place.precedence, place.tie)
        with remedies(self._address):
            rows = await self._pool.fetch(telling.GONE_WITH, *of_whom, limit)
        return [gone_of(row) for row in rows]

    async def contexts(self, changes: Changes) -> Sequence[Reading]:
        again = changes.again
        asked = (changes.memories, changes.alone, changes.users, changes.read | again, again)
        with remedies(self._address):
            rows = await self._pool.fetch(telling.CONTEXTS, *map(list, asked))
        known = [(row, classified_of(row)) for row in rows]
        return [
            Reading(state, row["reading"])
            for row, state in known
            if row["key"] in again or context_hash(state.preceding, state.following) != row["heard"]
        ]

    async def readings(self, keys: Sequence[UUID]) -> Mapping[UUID, int]:
        with remedies(self._address):
            rows = await self._pool.fetch(telling.READINGS, list(keys))
        return {row["key"]: row["context"] for row in rows}

    async def close(self) -> None:
        await self._pool.close()
