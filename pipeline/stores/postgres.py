"""The record: each memory's newest state in Postgres, and an audit trail of the states it had.

A batch is one transaction: what the record holds of the memories in it is read and locked, `decide` says
what follows, and one statement writes it. That statement looks again whether a newer state came in
between, from a consumer that lost its partition and does not know it yet.

What is forgotten leaves its tombstone and nothing of its content, not in the audit trail either. A user is
forgotten in one short transaction, from which on nobody is told anything of it, nor can write it back. What
the user had is then erased page by page, so that no one waits long for a lock; after a crash it begins again.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID
from zlib import crc32

import asyncpg
from alembic import command
from alembic.config import Config
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from pipeline.domain.identity import context_hash, memory_key, user_key
from pipeline.domain.tiers import Tiers
from pipeline.domain.versions import Known, Outcome, erased, runs
from pipeline.ports import AuditEntry, Believed, Belonging, Changes, Fingerprint, Reading, TooMuch
from pipeline.stores import sql
from pipeline.stores.lives import (
    KeptLife,
    decide_lives,
    inherited,
    looked_at,
    of_state,
    touched_by,
)
from pipeline.stores.remedies import address_of, remedies
from pipeline.stores.rows import (
    believed_of,
    belonging_of,
    classified_of,
    fingerprint_of,
    gone_of,
    kept_life_of,
    known_of_row,
    life_row,
    memory_row,
    published_of,
    recorded_memory_of,
    recorded_of,
    said_once,
    state_row,
    user_forgotten_of,
    watermark_of,
)
from pipeline.stores.states import (
    MemoryChange,
    State,
    Watermark,
    decide,
    gone,
    history,
    known_of,
    named_user,
    outcome_of,
    superseded,
    told_once,
    with_user,
)
from schemas.events import (
    Enriched,
    Lived,
    MemoryEnriched,
    MemoryForgotten,
    MemoryTiered,
    Published,
    UserForgotten,
)
from schemas.search import EventRef, RecordedMemory

_LOCKS = 0x484D
"""The space of our advisory locks."""
_MIGRATION_LOCK = -1
_USER_LOCKS = 64
"""Users share this many locks, so that a batch of many users needs few."""
_CONNECTIONS = 4
_PAGE = 1_000
"""Fingerprints read at once."""
_ERASED_AT_ONCE = 1_000
"""Memories of a forgotten user in one transaction: some 50 ms."""

_Session: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


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
        {"space": _LOCKS, "lock": _MIGRATION_LOCK},
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
                            outcomes.append(await _forget_user(session, forgetting))
                        case _:
                            outcomes.extend(await _write_memories(session, run))
        return outcomes

    async def get(self, user_id: str, memory_id: str) -> RecordedMemory | None:
        with remedies(self._address):
            row = await self._pool.fetchrow(sql.GET, memory_key(named_user(user_id), memory_id))
        return recorded_memory_of(row) if row else None

    async def live(self, events: Sequence[Lived], tiers: Tiers) -> Sequence[MemoryTiered | None]:
        keys = list(looked_at(events))
        with remedies(self._address):
            async with self._pool.acquire() as session, session.transaction():
                # Locked: who forgets one of them waits, and then takes its life along.
                there = await session.fetch(sql.LIVING_LOCKED, keys)
                known = await _lives_of(session, keys)
                living = {row["key"]: row["precedence"] for row in there}
                decided = decide_lives(events, known, living, tiers)
                await _keep_lives(session, decided.writes)
        return decided.told

    async def lives(self, after: UUID | None, limit: int) -> Sequence[tuple[UUID, MemoryTiered]]:
        with remedies(self._address):
            rows = await self._pool.fetch(sql.LIVES, after or UUID(int=0), limit)
        told = [(row, MemoryTiered.model_validate_json(row["told"])) for row in rows]
        return [(row["key"], of_state(each, row["precedence"])) for row, each in told]

    async def remembered_anew(self, after: UUID | None, limit: int) -> Sequence[MemoryForgotten]:
        with remedies(self._address):
            rows = await self._pool.fetch(sql.REMEMBERED_ANEW, after or UUID(int=0), limit)
        return [MemoryForgotten(**row) for row in rows]

    async def belongings(
        self, user_id: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[Belonging]:
        whose = None if user_id is None else named_user(user_id)
        with remedies(self._address):
            rows = await self._pool.fetch(sql.BELONGINGS, whose, *(after or ("", "")), limit)
        return [belonging_of(row) for row in rows]

    async def past(
        self, user_id: str, version: int, *, limit: int, among: int, most_bytes: int
    ) -> Sequence[Believed] | TooMuch:
        named_user(user_id)
        with remedies(self._address):
            async with self._pool.acquire() as session:
                # Each of them is looked up: some 8 microseconds, whether it was there then or not.
                if await session.fetchval(sql.NEWER, version, user_id, among + 1) > among:
                    return "written"
                rows = await session.fetch(sql.PAST, version, user_id, limit, most_bytes)
        if rows and rows[-1]["said"] > most_bytes:
            return "said"
        # Thousands, with much metadata, take a tenth of a second.
        return await asyncio.to_thread(lambda: [believed_of(row) for row in rows])

    async def state_at(self, user_id: str, memory_id: str, version: int) -> Believed | None:
        key = memory_key(named_user(user_id), memory_id)
        with remedies(self._address):
            row = await self._pool.fetchrow(sql.PAST_OF, version, key)
        return believed_of(row) if row else None

    async def is_forgotten(self, user_id: str, memory_id: str) -> bool:
        with remedies(self._address):
            key = memory_key(named_user(user_id), memory_id)
            return await self._pool.fetchval(sql.IS_FORGOTTEN, key)

    async def forgotten_until(self, user_id: str, memory_id: str) -> int:
        with remedies(self._address):
            key = memory_key(named_user(user_id), memory_id)
            return await self._pool.fetchval(sql.FORGOTTEN_UNTIL, key, user_id)

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        named_user(user_id)
        # The forgetting of a user is no memory's: nothing is kept under its key.
        keys = [memory_key(user_id, event.memory_id or "") for event in events]
        with remedies(self._address):
            async with self._pool.acquire() as session:
                marks = await session.fetch(sql.WATERMARKS, [user_id])
                known = await _known(session, sql.KNOWN, keys)
                audited = await session.fetch(
                    sql.AUDITED, keys, [event.event_id for event in events]
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
            return await self._pool.fetchval(sql.NEWEST, named_user(user_id))

    async def history(self, user_id: str, memory_id: str) -> Sequence[AuditEntry]:
        key = memory_key(named_user(user_id), memory_id)
        with remedies(self._address):
            async with self._pool.acquire() as session:
                rows = await session.fetch(sql.HISTORY, key)
                marks = await _marks(session, [user_id])
        return history([recorded_of(row) for row in rows], marks.get(user_id))

    async def count(self, user_id: str | None = None) -> int:
        if user_id is not None:
            named_user(user_id)
        with remedies(self._address):
            return await self._pool.fetchval(sql.COUNT, user_id)

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        return await self._fingerprints(sql.PAGE, after or UUID(int=0), limit)

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        return await self._fingerprints(sql.FINGERPRINTS_OF, list(keys))

    async def _fingerprints(self, statement: str, *arguments: Any) -> Sequence[Fingerprint]:
        with remedies(self._address):
            rows = await self._pool.fetch(statement, *arguments)
        return [fingerprint_of(row) for row in rows]

    async def publishable(self, keys: Sequence[UUID]) -> Sequence[Published]:
        with remedies(self._address):
            async with self._pool.acquire() as session:
                marks = await session.fetch(sql.MARKS_OF, list(keys))
                rows = await session.fetch(sql.PUBLISHABLE, list(keys))
        return [*map(user_forgotten_of, marks), *map(published_of, rows)]

    async def gone_with(
        self, forgetting: UserForgotten, after: str, limit: int
    ) -> Sequence[MemoryForgotten]:
        place = erased(forgetting.version).stamp
        of_whom = (forgetting.user_id, after, place.precedence, place.tie)
        with remedies(self._address):
            rows = await self._pool.fetch(sql.GONE_WITH, *of_whom, limit)
        return [gone_of(row) for row in rows]

    async def contexts(self, changes: Changes) -> Sequence[Reading]:
        again = changes.again
        asked = (changes.memories, changes.alone, changes.users, changes.read | again, again)
        with remedies(self._address):
            rows = await self._pool.fetch(sql.CONTEXTS, *map(list, asked))
        known = [(row, classified_of(row)) for row in rows]
        return [
            Reading(state, row["reading"])
            for row, state in known
            if row["key"] in again or context_hash(state.preceding, state.following) != row["heard"]
        ]

    async def readings(self, keys: Sequence[UUID]) -> Mapping[UUID, int]:
        with remedies(self._address):
            rows = await self._pool.fetch(sql.READINGS, list(keys))
        return {row["key"]: row["context"] for row in rows}

    async def close(self) -> None:
        await self._pool.close()


async def _lock_users(session: _Session, changes: Iterable[Enriched]) -> None:
    """Who forgets waits for who is writing this user's memories, and they for it.

    So what is written beside a memory that is being forgotten is there to be found, or knows of it. All
    of a batch's locks are taken at once and in one order: two batches cannot wait for each other.
    """
    locks: dict[int, bool] = {}
    for change in changes:
        lock = crc32(change.user_id.encode()) % _USER_LOCKS
        locks[lock] = locks.get(lock, False) or not isinstance(change, MemoryEnriched)
    order = sorted(locks)
    await session.execute(sql.LOCK_USERS, _LOCKS, order, [locks[lock] for lock in order])


async def _write_memories(session: _Session, run: Sequence[Enriched]) -> Sequence[Outcome]:
    changes = [change for change in run if not isinstance(change, UserForgotten)]
    keys = {memory_key(change.user_id, change.memory_id) for change in changes}
    async with session.transaction():
        await _lock_users(session, changes)
        marks = await _marks(session, {change.user_id for change in changes})
        known = await _known(session, sql.KNOWN_LOCKED, keys)
        decided = decide(changes, known, marks)
        left = await _left_behind(session, decided.writes, known)
        # In the order of their keys, as they were locked.
        rows = [
            memory_row(key, decided.writes[key], decided.heard.get(key), left.get(key))
            for key in sorted(decided.writes)
        ]
        await session.execute(sql.UPSERT, json.dumps(rows))
        if decided.forgotten:
            await _erase_lives(session, sql.ERASE_LIVES, list(decided.forgotten))
        await _record(session, changes, decided.outcomes, marks)
    return decided.outcomes


async def _left_behind(
    session: _Session, writes: Mapping[UUID, State], known: Mapping[UUID, Known]
) -> Mapping[UUID, Sequence[UUID]]:
    """The memories beside those that are about to leave their place in a conversation, by memory key."""
    replaced = [
        key
        for key, state in writes.items()
        if key in known and not known[key].forgotten and known[key].stamp != known_of(state).stamp
    ]
    if not replaced:
        return {}
    rows = await session.fetch(sql.PLACES, replaced)
    return {
        row["key"]: row["neighbours"]
        for row in rows
        if _place(writes[row["key"]]) != (row["run_id"], row["occurred_at"])
    }


def _place(state: State) -> tuple[str | None, datetime] | None:
    return (state.run_id, state.occurred_at) if isinstance(state, MemoryEnriched) else None


async def _record(
    session: _Session,
    changes: Sequence[MemoryChange],
    outcomes: Sequence[Outcome],
    marks: Mapping[str, Watermark],
) -> None:
    """Adds states to the audit trail; the forgettings take the content of the others away.

    The text of what is forgotten, or comes after its forgetting, goes from what was said after it, too.
    """
    forgettings = [
        change
        for change in changes
        if isinstance(change, MemoryForgotten) and not with_user(change, marks)
    ]
    kept = [change for change in told_once(changes) if isinstance(change, MemoryEnriched)]
    late, behind = gone(changes, outcomes), superseded(changes, outcomes)
    if forgettings:
        told = json.dumps([state_row(each, {}) for each in told_once(forgettings)])
        await session.execute(sql.RECORD, told)
    keys = list({memory_key(change.user_id, change.memory_id) for change in forgettings})
    if keys or late or behind:
        said = [json.dumps([said_once(each) for each in some]) for some in (late, behind)]
        await session.execute(sql.FORGET_PRECEDING, keys, *said)
    if keys:
        await session.execute(sql.ERASE_STATES, keys)
    if kept:
        await session.execute(sql.RECORD, json.dumps([state_row(each, marks) for each in kept]))


async def _forget_user(session: _Session, forgetting: UserForgotten) -> Outcome:
    """The watermark first: a crash in between repeats the erasing, and nobody sees what is left of it.

    What another copy of the forgetting, or a later one, has begun is ended here too: who is told of one
    may rely on everything being gone.
    """
    user_id, version = forgetting.user_id, forgetting.version
    by = (forgetting.event_id, forgetting.published_at)
    async with session.transaction():
        await _lock_users(session, [forgetting])
        await session.execute(sql.FORGET_USER, user_id, version, *by, user_key(user_id))
        (row,) = await session.fetch(sql.WATERMARKS, [user_id])
    mark = watermark_of(row)
    if row["erased_until"] < mark.version:
        await _erase(session, user_id, mark)
    return "stored" if mark.version == version else "superseded"


async def _lives_of(session: _Session, keys: Iterable[UUID]) -> dict[UUID, KeptLife]:
    rows = await session.fetch(sql.LIVES_LOCKED, list(keys))
    return {row["key"]: kept_life_of(row) for row in rows}


async def _keep_lives(session: _Session, lives: Mapping[UUID, KeptLife]) -> None:
    kept = [life_row(key, lives[key]) for key in sorted(lives)]
    await session.execute(sql.KEEP_LIVES, json.dumps(kept))


async def _erase_lives(session: _Session, statement: str, keys: Sequence[UUID]) -> None:
    """What was forgotten takes its life along, and nobody stands for it any more."""
    gone = [kept_life_of(row) for row in await session.fetch(statement, keys)]
    if gone:
        known = await _lives_of(session, touched_by(gone))
        await _keep_lives(session, inherited(gone, known))


async def _erase(session: _Session, user_id: str, mark: Watermark) -> None:
    """Erases what a user had up to the watermark, and says so in the end."""
    after, tie = "", erased(mark.version).stamp.tie
    while page := await session.fetch(sql.PAGE_OF_USER, user_id, after, _ERASED_AT_ONCE):
        after, keys = page[-1]["memory_id"], [row["key"] for row in page]
        # By itself, and first: whoever holds the page must not wait for others of the user.
        await session.execute(sql.FORGET_TOLD, keys, mark.version, user_id)
        async with session.transaction():
            await session.execute(sql.LOCK_MEMORIES, keys)
            await session.execute(
                sql.ERASE_MEMORIES, keys, mark.version, tie, mark.event_id, mark.published_at
            )
            await session.execute(sql.FORGET_BESIDE, keys, mark.version)
            await session.execute(sql.ERASE_STATES_UNTIL, keys, mark.version)
            await _erase_lives(session, sql.ERASE_LIVES_OF_FORGOTTEN, keys)
    await session.execute(sql.USER_ERASED, user_id, mark.version)


async def _known(session: _Session, statement: str, keys: Iterable[UUID]) -> dict[UUID, Known]:
    rows = await session.fetch(statement, list(keys))
    return {row["key"]: known_of_row(row) for row in rows}


async def _marks(session: _Session, user_ids: Iterable[str]) -> dict[str, Watermark]:
    rows = await session.fetch(sql.WATERMARKS, list(user_ids))
    return {row["user_id"]: watermark_of(row) for row in rows}
