"""Changes in, what they make of the record out: each function within the session that it is given.

A batch is one transaction: what the record holds of the memories in it is read and locked, `decide` says
what follows, and one statement writes it. That statement looks again whether a newer state came in
between, from a consumer that lost its partition and does not know it yet.

A user is forgotten in one short transaction, from which on nobody is told anything of it, nor can write it back.
What the user had is then erased page by page, so that no one waits long for a lock; after a crash it begins again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID
from zlib import crc32

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from pipeline.domain.identity import memory_key, user_key
from pipeline.domain.versions import Known, Outcome, erased
from pipeline.stores.lives import KeptLife, inherited, touched_by
from pipeline.stores.rows import (
    kept_life_of,
    known_of_row,
    life_row,
    memory_row,
    said_once,
    state_row,
    watermark_of,
)
from pipeline.stores.sql import erasing, lives, parts, writing
from pipeline.stores.states import (
    MemoryChange,
    State,
    Watermark,
    decide,
    gone,
    known_of,
    superseded,
    told_once,
    with_user,
)
from schemas.events import Enriched, MemoryEnriched, MemoryForgotten, UserForgotten

LOCKS = 0x484D
"""The space of our advisory locks."""
_USER_LOCKS = 64
"""Users share this many locks, so that a batch of many users needs few."""
_ERASED_AT_ONCE = 1_000
"""Memories of a forgotten user in one transaction: some 50 ms."""

Session: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


async def _lock_users(session: Session, changes: Iterable[Enriched]) -> None:
    """Who forgets waits for who is writing this user's memories, and they for it.

    So what is written beside a memory that is being forgotten is there to be found, or knows of it. All
    of a batch's locks are taken at once and in one order: two batches cannot wait for each other.
    """
    locks: dict[int, bool] = {}
    for change in changes:
        lock = crc32(change.user_id.encode()) % _USER_LOCKS
        locks[lock] = locks.get(lock, False) or not isinstance(change, MemoryEnriched)
    order = sorted(locks)
    await session.execute(writing.LOCK_USERS, LOCKS, order, [locks[lock] for lock in order])


async def write_memories(session: Session, run: Sequence[Enriched]) -> Sequence[Outcome]:
    """Writes changes of memories, in one transaction; says what became of each."""
    changes = [change for change in run if not isinstance(change, UserForgotten)]
    keys = {memory_key(change.user_id, change.memory_id) for change in changes}
    async with session.transaction():
        await _lock_users(session, changes)
        marks = await watermarks(session, {change.user_id for change in changes})
        known = await known_memories(session, writing.KNOWN_LOCKED, keys)
        decided = decide(changes, known, marks)
        left = await _left_behind(session, decided.writes, known)
        # In the order of their keys, as they were locked.
        rows = [
            memory_row(key, decided.writes[key], decided.heard.get(key), left.get(key))
            for key in sorted(decided.writes)
        ]
        await session.execute(writing.UPSERT, json.dumps(rows))
        if decided.forgotten:
            await _erase_lives(session, lives.ERASE_LIVES, list(decided.forgotten))
        await _record(session, changes, decided.outcomes, marks)
    return decided.outcomes


async def _left_behind(
    session: Session, writes: Mapping[UUID, State], known: Mapping[UUID, Known]
) -> Mapping[UUID, Sequence[UUID]]:
    """The memories beside those that are about to leave their place in a conversation, by memory key."""
    replaced = [
        key
        for key, state in writes.items()
        if key in known and not known[key].forgotten and known[key].stamp != known_of(state).stamp
    ]
    if not replaced:
        return {}
    rows = await session.fetch(writing.PLACES, replaced)
    return {
        row["key"]: row["neighbours"]
        for row in rows
        if _place(writes[row["key"]]) != (row["run_id"], row["occurred_at"])
    }


def _place(state: State) -> tuple[str | None, datetime] | None:
    return (state.run_id, state.occurred_at) if isinstance(state, MemoryEnriched) else None


async def _record(
    session: Session,
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
        await session.execute(writing.RECORD, told)
    keys = list({memory_key(change.user_id, change.memory_id) for change in forgettings})
    if keys or late or behind:
        said = [json.dumps([said_once(each) for each in some]) for some in (late, behind)]
        await session.execute(writing.FORGET_PRECEDING, keys, *said)
    if keys:
        await session.execute(writing.ERASE_STATES, keys)
    if kept:
        await session.execute(writing.RECORD, json.dumps([state_row(each, marks) for each in kept]))


async def forget_user(session: Session, forgetting: UserForgotten) -> Outcome:
    """The watermark first: a crash in between repeats the erasing, and nobody sees what is left of it.

    What another copy of the forgetting, or a later one, has begun is ended here too: who is told of one
    may rely on everything being gone.
    """
    user_id, version = forgetting.user_id, forgetting.version
    by = (forgetting.event_id, forgetting.published_at)
    async with session.transaction():
        await _lock_users(session, [forgetting])
        await session.execute(erasing.FORGET_USER, user_id, version, *by, user_key(user_id))
        (row,) = await session.fetch(parts.WATERMARKS, [user_id])
    mark = watermark_of(row)
    if row["erased_until"] < mark.version:
        await _erase(session, user_id, mark)
    return "stored" if mark.version == version else "superseded"


async def lives_of(session: Session, keys: Iterable[UUID]) -> dict[UUID, KeptLife]:
    """The lives of memories, locked."""
    rows = await session.fetch(lives.LIVES_LOCKED, list(keys))
    return {row["key"]: kept_life_of(row) for row in rows}


async def keep_lives(session: Session, changed: Mapping[UUID, KeptLife]) -> None:
    """Writes lives, in the order of their keys, as they were locked."""
    kept = [life_row(key, changed[key]) for key in sorted(changed)]
    await session.execute(lives.KEEP_LIVES, json.dumps(kept))


async def _erase_lives(session: Session, statement: str, keys: Sequence[UUID]) -> None:
    """What was forgotten takes its life along, and nobody stands for it any more."""
    gone = [kept_life_of(row) for row in await session.fetch(statement, keys)]
    if gone:
        known = await lives_of(session, touched_by(gone))
        await keep_lives(session, inherited(gone, known))


async def _erase(session: Session, user_id: str, mark: Watermark) -> None:
    """Erases what a user had up to the watermark, and says so in the end."""
    after, tie = "", erased(mark.version).stamp.tie
    while page := await session.fetch(erasing.PAGE_OF_USER, user_id, after, _ERASED_AT_ONCE):
        after, keys = page[-1]["memory_id"], [row["key"] for row in page]
        # By itself, and first: whoever holds the page must not wait for others of the user.
        await session.execute(erasing.FORGET_TOLD, keys, mark.version, user_id)
        async with session.transaction():
            await session.execute(erasing.LOCK_MEMORIES, keys)
            await session.execute(
                erasing.ERASE_MEMORIES, keys, mark.version, tie, mark.event_id, mark.published_at
            )
            await session.execute(erasing.FORGET_BESIDE, keys, mark.version)
            await session.execute(erasing.ERASE_STATES_UNTIL, keys, mark.version)
            await _erase_lives(session, lives.ERASE_LIVES_OF_FORGOTTEN, keys)
    await session.execute(erasing.USER_ERASED, user_id, mark.version)


async def known_memories(
    session: Session, statement: str, keys: Iterable[UUID]
) -> dict[UUID, Known]:
    """What the record holds of memories, as `statement` asks: locked or not."""
    rows = await session.fetch(statement, list(keys))
    return {row["key"]: known_of_row(row) for row in rows}


async def watermarks(session: Session, user_ids: Iterable[str]) -> dict[str, Watermark]:
    """Up to where users were forgotten."""
    rows = await session.fetch(parts.WATERMARKS, list(user_ids))
    return {row["user_id"]: watermark_of(row) for row in rows}
