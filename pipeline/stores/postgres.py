"""The record: each memory's newest state in Postgres, and an audit trail of the states it had.

A batch is one transaction: what the record holds of the memories in it is read and locked, `decide` says
what follows, and one statement writes it. That statement looks again whether a newer state came in
between, from a consumer that lost its partition and does not know it yet.

What is forgotten leaves its tombstone and nothing of its content, not in the audit trail either. A user is
forgotten in one short transaction, from which on nobody is told anything of it, nor can write it back. What
the user had is then erased page by page, so that no one waits long for a lock; after a crash it begins again.
"""

import json
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit
from uuid import UUID
from zlib import crc32

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from asyncpg import exceptions as pg
from asyncpg.pool import PoolConnectionProxy
from pydantic import JsonValue
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from pipeline.domain.identity import content_hash, context_hash, memory_key, user_key
from pipeline.domain.tiers import Tiers, tier_of
from pipeline.domain.versions import Known, Outcome, Stamp, erased, runs, stamp
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.ports import AuditEntry, Believed, Belonging, Changes, Fingerprint, Reading
from pipeline.stores import sql
from pipeline.stores.lives import (
    LIFE,
    KeptLife,
    decide_lives,
    inherited,
    looked_at,
    told_of,
    touched_by,
)
from pipeline.stores.states import (
    Erased,
    MemoryChange,
    Recorded,
    State,
    Watermark,
    decide,
    gone,
    history,
    known_of,
    named_user,
    outcome_of,
    superseded,
    with_user,
)
from schemas.events import (
    Enriched,
    Lived,
    MemoryCaptured,
    MemoryClassified,
    MemoryEnriched,
    MemoryForgotten,
    MemoryTiered,
    Published,
    Said,
    UserForgotten,
)
from schemas.search import EventRef, KnownMemory

_LOCKS = 0x484D
"""The space of our advisory locks."""
_MIGRATION_LOCK = -1
_USER_LOCKS = 64
"""Users share this many locks, so that a batch of many users needs few."""
_PAGE = 1_000
"""Fingerprints read at once."""
_ERASED_AT_ONCE = 1_000
"""Memories of a forgotten user in one transaction: some 50 ms."""

_Session: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


async def open_records(
    dsn: str,
    *,
    application_name: str = "hybrid-memory",
    connections: int = 4,
    timeout_s: float = 30.0,
) -> "PostgresRecords":
    """The record at `dsn`, its tables made or brought up to date.

    No statement takes longer than `timeout_s`. Raises Unavailable, and Refused where Postgres lets us not
    in or was migrated by a later version of this program.
    """
    await migrate(dsn)
    address = _address(dsn)
    with _remedies(address):
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=connections,
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
    with _remedies(_address(dsn)):
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
        with _remedies(self._address):
            async with self._pool.acquire() as session:
                for run in runs(changes):
                    match run[0]:
                        case UserForgotten() as forgetting:
                            outcomes.append(await _forget_user(session, forgetting))
                        case _:
                            outcomes.extend(await _write_memories(session, run))
        return outcomes

    async def get(self, user_id: str, memory_id: str) -> KnownMemory | None:
        with _remedies(self._address):
            row = await self._pool.fetchrow(sql.GET, memory_key(named_user(user_id), memory_id))
        return _known_memory(row) if row else None

    async def live(self, events: Sequence[Lived], tiers: Tiers) -> Sequence[MemoryTiered | None]:
        keys = list(looked_at(events))
        with _remedies(self._address):
            async with self._pool.acquire() as session, session.transaction():
                # Locked: who forgets one of them waits, and then takes its life along.
                there = await session.fetch(sql.LIVING_LOCKED, keys)
                known = await _lives_of(session, keys)
                living = {row["key"]: row["version"] for row in there}
                decided = decide_lives(events, known, living, tiers)
                await _keep_lives(session, decided.writes)
        return decided.told

    async def lives(self, after: UUID | None, limit: int) -> Sequence[tuple[UUID, MemoryTiered]]:
        with _remedies(self._address):
            rows = await self._pool.fetch(sql.LIVES, after or UUID(int=0), limit)
        return [(row["key"], MemoryTiered.model_validate_json(row["told"])) for row in rows]

    async def belongings(
        self, user_id: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[Belonging]:
        whose = None if user_id is None else named_user(user_id)
        with _remedies(self._address):
            rows = await self._pool.fetch(sql.BELONGINGS, whose, *(after or ("", "")), limit)
        return [_belonging(row) for row in rows]

    async def past(
        self, user_id: str, version: int, *, limit: int, among: int
    ) -> Sequence[Believed] | None:
        named_user(user_id)
        with _remedies(self._address):
            async with self._pool.acquire() as session:
                # Each of them is looked up: some 8 microseconds, whether it was there then or not.
                if await session.fetchval(sql.NEWER, version, user_id, among + 1) > among:
                    return None
                rows = await session.fetch(sql.PAST, version, user_id, limit)
        return [_believed(row) for row in rows]

    async def state_at(self, user_id: str, memory_id: str, version: int) -> Believed | None:
        key = memory_key(named_user(user_id), memory_id)
        with _remedies(self._address):
            row = await self._pool.fetchrow(sql.PAST_OF, version, key)
        return _believed(row) if row else None

    async def is_forgotten(self, user_id: str, memory_id: str) -> bool:
        with _remedies(self._address):
            key = memory_key(named_user(user_id), memory_id)
            return await self._pool.fetchval(sql.IS_FORGOTTEN, key)

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        named_user(user_id)
        # The forgetting of a user is no memory's: nothing is kept under its key.
        keys = [memory_key(user_id, event.memory_id or "") for event in events]
        with _remedies(self._address):
            async with self._pool.acquire() as session:
                marks = await session.fetch(sql.WATERMARKS, [user_id])
                known = await _known(session, sql.KNOWN, keys)
                audited = await session.fetch(
                    sql.AUDITED, keys, [event.event_id for event in events]
                )
        mark = _watermark(marks[0]) if marks else None
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
        with _remedies(self._address):
            return await self._pool.fetchval(sql.NEWEST, named_user(user_id))

    async def history(self, user_id: str, memory_id: str) -> Sequence[AuditEntry]:
        key = memory_key(named_user(user_id), memory_id)
        with _remedies(self._address):
            async with self._pool.acquire() as session:
                rows = await session.fetch(sql.HISTORY, key)
                marks = await _marks(session, [user_id])
        return history([_recorded(row) for row in rows], marks.get(user_id))

    async def count(self, user_id: str | None = None) -> int:
        if user_id is not None:
            named_user(user_id)
        with _remedies(self._address):
            return await self._pool.fetchval(sql.COUNT, user_id)

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        return await self._fingerprints(sql.PAGE, after or UUID(int=0), limit)

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        return await self._fingerprints(sql.FINGERPRINTS_OF, list(keys))

    async def fingerprints(self) -> AsyncIterator[Fingerprint]:
        after = UUID(int=0)
        while told := await self._fingerprints(sql.FINGERPRINTS, after, _PAGE):
            after = told[-1].key
            for each in told:
                yield each

    async def _fingerprints(self, statement: str, *arguments: Any) -> Sequence[Fingerprint]:
        with _remedies(self._address):
            rows = await self._pool.fetch(statement, *arguments)
        return [_fingerprint(row) for row in rows]

    async def publishable(self, keys: Sequence[UUID]) -> Sequence[Published]:
        with _remedies(self._address):
            async with self._pool.acquire() as session:
                marks = await session.fetch(sql.MARKS_OF, list(keys))
                rows = await session.fetch(sql.PUBLISHABLE, list(keys))
        return [*map(_user_forgotten, marks), *map(_published, rows)]

    async def gone_with(
        self, forgetting: UserForgotten, after: str, limit: int
    ) -> Sequence[MemoryForgotten]:
        place = erased(forgetting.version).stamp
        of_whom = (forgetting.user_id, after, place.precedence, place.tie)
        with _remedies(self._address):
            rows = await self._pool.fetch(sql.GONE_WITH, *of_whom, limit)
        return [_gone(row) for row in rows]

    async def contexts(self, changes: Changes) -> Sequence[Reading]:
        again = changes.again
        asked = (changes.memories, changes.alone, changes.users, changes.read | again, again)
        with _remedies(self._address):
            rows = await self._pool.fetch(sql.CONTEXTS, *map(list, asked))
        known = [(row, _classified(row)) for row in rows]
        return [
            Reading(state, row["reading"])
            for row, state in known
            if row["key"] in again or context_hash(state.preceding, state.following) != row["heard"]
        ]

    async def readings(self, keys: Sequence[UUID]) -> Mapping[UUID, int]:
        with _remedies(self._address):
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
            _memory_row(key, decided.writes[key], decided.heard.get(key), left.get(key))
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
    kept = [change for change in changes if isinstance(change, MemoryEnriched)]
    late, behind = gone(changes, outcomes), superseded(changes, outcomes)
    if forgettings:
        told = json.dumps([_state_row(each, {}) for each in forgettings])
        await session.execute(sql.RECORD, told)
    keys = [memory_key(change.user_id, change.memory_id) for change in forgettings]
    if keys or late or behind:
        said = [json.dumps([_said_once(each) for each in some]) for some in (late, behind)]
        await session.execute(sql.FORGET_PRECEDING, keys, *said)
    if keys:
        await session.execute(sql.ERASE_STATES, keys)
    if kept:
        await session.execute(sql.RECORD, json.dumps([_state_row(each, marks) for each in kept]))


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
    mark = _watermark(row)
    if row["erased_until"] < mark.version:
        await _erase(session, user_id, mark)
    return "stored" if mark.version == version else "superseded"


async def _lives_of(session: _Session, keys: Iterable[UUID]) -> dict[UUID, KeptLife]:
    rows = await session.fetch(sql.LIVES_OF, list(keys))
    return {row["key"]: _kept_life(row) for row in rows}


async def _keep_lives(session: _Session, lives: Mapping[UUID, KeptLife]) -> None:
    kept = [_life_row(key, lives[key]) for key in sorted(lives)]
    await session.execute(sql.KEEP_LIVES, json.dumps(kept))


async def _erase_lives(session: _Session, statement: str, keys: Sequence[UUID]) -> None:
    """What was forgotten takes its life along, and nobody stands for it any more."""
    gone = [_kept_life(row) for row in await session.fetch(statement, keys)]
    if gone:
        known = await _lives_of(session, touched_by(gone))
        await _keep_lives(session, inherited(gone, known))


async def _erase(session: _Session, user_id: str, mark: Watermark) -> None:
    """Erases what a user had up to the watermark, and says so in the end."""
    after, tie = "", erased(mark.version).stamp.tie
    while page := await session.fetch(sql.PAGE_OF_USER, user_id, after, _ERASED_AT_ONCE):
        after, keys = page[-1]["memory_id"], [row["key"] for row in page]
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
    return {row["key"]: _known_of_row(row) for row in rows}


def _known_of_row(row: asyncpg.Record) -> Known:
    return Known(Stamp(row["precedence"], row["tie"]), row["forgotten"])


def _fingerprint(row: asyncpg.Record) -> Fingerprint:
    known = _known_of_row(row)
    return Fingerprint(row["key"], known, row["content_hash"], row["watermark"], row["life"])


def _user_forgotten(row: asyncpg.Record) -> UserForgotten:
    return UserForgotten(**row, partition=0, partitions=1)


def _gone(row: asyncpg.Record) -> MemoryForgotten:
    """A row that `erased` has stamped: its event is the user's forgetting."""
    by = Watermark(row["version"], row["event_id"], row["published_at"])
    return Erased(row["user_id"], row["memory_id"], by).told


def _published(row: asyncpg.Record) -> MemoryCaptured | MemoryForgotten:
    if _known_of_row(row) == erased(row["version"]):
        return _gone(row)
    if row["forgotten"]:
        return MemoryForgotten(**_event(row))
    return MemoryCaptured(**_event(row), **_state(row))


def _classified(row: asyncpg.Record) -> MemoryClassified:
    about = {name: row[name] for name in ("domain", "topics", "importance")}
    return MemoryClassified(**_event(row), **_state(row), **about)


def _event(row: asyncpg.Record) -> dict[str, Any]:
    names = ("event_id", "user_id", "version", "published_at", "memory_id")
    return {name: row[name] for name in names}


def _state(row: asyncpg.Record) -> dict[str, Any]:
    return _said_in(row) | {
        "context": row["context"],
        "preceding": json.loads(row["preceding"] or "[]"),
        "following": json.loads(row["following"] or "[]"),
    }


def _said_in(row: asyncpg.Record) -> dict[str, Any]:
    names = ("text", "occurred_at", "speaker", "agent_id", "app_id", "run_id")
    return {name: row[name] for name in names} | {
        "metadata": _metadata(row["metadata"]),
        "if_absent": row["precedence"] < 0,
    }


async def _marks(session: _Session, user_ids: Iterable[str]) -> dict[str, Watermark]:
    rows = await session.fetch(sql.WATERMARKS, list(user_ids))
    return {row["user_id"]: _watermark(row) for row in rows}


def _watermark(row: asyncpg.Record) -> Watermark:
    return Watermark(row["version"], row["event_id"], row["published_at"])


def _memory_row(
    key: UUID, state: State, heard: str | None, left_behind: Sequence[UUID] | None
) -> dict[str, Any]:
    known = known_of(state)
    event = state.by if isinstance(state, Erased) else state
    row: dict[str, Any] = {
        "key": str(key),
        "user_id": state.user_id,
        "memory_id": state.memory_id,
        "precedence": known.stamp.precedence,
        "tie": known.stamp.tie,
        "version": known.stamp.version,
        "event_id": str(event.event_id),
        "published_at": _moment(event.published_at),
        "forgotten": known.forgotten,
        "content_hash": "",
        "context": known.context,
        "neighbours": [str(each) for each in left_behind] if left_behind else None,
    }
    if isinstance(state, MemoryEnriched):
        row |= _content(state) | {
            "heard": heard,
            "content_hash": content_hash(state),
            "domain": state.domain,
            "topics": state.topics,
            "importance": state.importance,
            "model": state.model,
            "preceding": _said(state.preceding),
        }
    return row


def _state_row(change: MemoryChange, marks: Mapping[str, Watermark]) -> dict[str, Any]:
    mark, place = marks.get(change.user_id), stamp(change)
    row: dict[str, Any] = {
        "key": str(memory_key(change.user_id, change.memory_id)),
        "event_id": str(change.event_id),
        "precedence": place.precedence,
        "tie": place.tie,
        "version": change.version,
        "published_at": _moment(change.published_at),
        "forgotten": isinstance(change, MemoryForgotten),
    }
    if isinstance(change, MemoryEnriched) and not (mark and change.version <= mark.version):
        row |= _content(change)
    return row


def _said_once(event: MemoryEnriched) -> dict[str, Any]:
    key, place = str(memory_key(event.user_id, event.memory_id)), stamp(event)
    said = event.model_dump(include={"user_id", "run_id", "text"})
    return {"key": key, "precedence": place.precedence, "tie": place.tie} | said


def _content(event: MemoryEnriched) -> dict[str, Any]:
    return {
        "text": event.text,
        "occurred_at": _moment(event.occurred_at),
        "speaker": event.speaker,
        "agent_id": event.agent_id,
        "app_id": event.app_id,
        "run_id": event.run_id,
        "metadata": event.metadata,
    }


def _said(texts: Sequence[Said]) -> list[dict[str, Any]] | None:
    """None where the publisher told of none."""
    return [each.model_dump(mode="json", exclude_none=True) for each in texts] or None


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def _known_memory(row: asyncpg.Record) -> KnownMemory:
    fields = _fields(row)
    told = told_of(fields.pop("told"))
    tier = tier_of(told, row["version"], datetime.now(UTC))
    return KnownMemory(**fields, tier=tier, consolidated=told.consolidated if told else ())


def _believed(row: asyncpg.Record) -> Believed:
    state = MemoryCaptured(**_event(row), **_said_in(row))
    return Believed(state, row["newest"], told_of(row["told"]))


def _belonging(row: asyncpg.Record) -> Belonging:
    fields: dict[str, Any] = {**row}
    fields["told"] = told_of(row["told"])
    return Belonging(**fields)


def _kept_life(row: asyncpg.Record) -> KeptLife:
    life = LIFE.validate_json(row["life"])
    return KeptLife(life, MemoryTiered.model_validate_json(row["told"]))


def _life_row(key: UUID, kept: KeptLife) -> dict[str, Any]:
    life = LIFE.dump_python(kept.life, mode="json")
    return {"key": str(key), "life": life, "told": kept.told.model_dump(mode="json")}


def _recorded(row: asyncpg.Record) -> Recorded:
    fields = _fields(row)
    return Recorded(Stamp(fields.pop("precedence"), fields.pop("tie")), **fields)


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    return {**row, "metadata": _metadata(row["metadata"])}


def _metadata(kept: str | None) -> dict[str, JsonValue]:
    # Postgres writes a great float, 1e300, as an integer of 300 digits; metadata has none beyond 64 bits.
    return json.loads(kept, parse_int=_number) if kept else {}


def _number(digits: str) -> int | float:
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else float(digits)


@contextmanager
def _remedies(address: str) -> Generator[None, None, None]:
    """Names an error by what to do about it. Nothing of a row or of the DSN gets into the message."""
    try:
        yield
    except Exception as error:
        remedy = _remedy(_unwrapped(error), address)
        if remedy is None:
            raise
        raise remedy from error


def _unwrapped(error: BaseException) -> BaseException:
    """What asyncpg said, where SQLAlchemy says it again."""
    while isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return error


def _remedy(error: BaseException, address: str) -> Exception | None:
    match error:
        case pg.ClientConfigurationError():
            return Refused(
                "POSTGRES_DSN is no address: postgresql://user:password@host:5432/database"
            )
        case CommandError():
            return Refused(
                f"Postgres at {address} was set up by a later version of this program: update this one."
            )
        case pg.OutdatedSchemaCacheError():
            return Unavailable(f"Postgres at {address} has just been migrated: again.")
        case pg.PostgresError():
            return _by_sqlstate(error.sqlstate or "", type(error).__name__, address)
        case pg.InternalClientError():
            # What asyncpg says of a connection whose server has just gone.
            return Unavailable(f"Postgres at {address} has broken off: is it restarting?")
        case pg.InterfaceError() if "closed" in str(error):
            return Unavailable(f"Postgres at {address} has closed the connection.")
        case OSError():
            return Unavailable(
                f"Postgres at {address} does not answer ({type(error).__name__}): is it running?"
            )
        case _:
            return None


def _by_sqlstate(state: str, name: str, address: str) -> Exception | None:
    if state.startswith(_IN_TROUBLE):
        return Unavailable(f"Postgres at {address} cannot do it now ({name}).")
    if state.startswith(_NOT_LET_IN):
        return Refused(f"Postgres at {address} lets us not in ({name}): check POSTGRES_DSN.")
    if state.startswith(_CANNOT_KEEP):
        return Unusable(f"Postgres cannot keep this ({name}).")
    return None


_IN_TROUBLE = ("08", "0A000", "25006", "25P03", "25P04", "40", "53", "55P03", "57", "58")
"""Connection, plan out of date, read-only, too slow, deadlock, resources, lock, shutdown, system."""
_NOT_LET_IN = ("28", "3D", "42501")
_CANNOT_KEEP = ("22", "54")


def _address(dsn: str) -> str:
    """host:port of a DSN, without user and password."""
    split = urlsplit(dsn)
    socket = parse_qs(split.query).get("host", [""])[0]
    return split.netloc.rpartition("@")[2] or socket or "localhost"
