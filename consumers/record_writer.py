"""memory.enriched -> Postgres, memory.stored, memory.enriched, memory.events: keep the record.

One statement for many memories, and the newest version of each wins.
Safe to repeat: an event that is already there changes nothing.

memory.enriched is compacted: it keeps the last record of each key. What forgetting has erased is therefore
said behind it, a MemoryForgotten under the memory's own key, or its text would stay there for good. And
where a forgetting came last that a newer state has outlived, that state goes through the stream once more.
"""

from collections.abc import AsyncGenerator, Sequence
from uuid import UUID

from pipeline.domain.identity import memory_key
from pipeline.domain.receipts import done
from pipeline.domain.versions import Outcome
from pipeline.ports import MemoryRecords
from pipeline.stage import Onward, Stage
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import (
    Enriched,
    MemoryEnriched,
    MemoryForgotten,
    MemoryStored,
    Published,
    Stored,
    UserForgotten,
)
from schemas.topics import ENRICHED, EVENTS, STORED

Done = Sequence[tuple[Enriched, Stored]]
"""Events, and the notices of them."""
PAGE = 1_000
"""Memories of a user that are told of at once: he may have had any number."""


def stage(records: MemoryRecords) -> Stage:
    """The record writer stage."""

    async def write(changes: Sequence[Enriched]) -> Sequence[Stored]:
        outcomes = await records.write(changes)
        beside = last_read(changes, outcomes)
        held = await records.readings(list(beside.values())) if beside else {}
        return [
            done(change, "record", outcome, held.get(beside[place], 0) if place in beside else 0)
            for place, (change, outcome) in enumerate(zip(changes, outcomes, strict=True))
        ]

    async def follow(written: Done) -> AsyncGenerator[Sequence[Onward]]:
        if last := outlived(written):
            held = await records.publishable(list(last))
            yield [onward for state in held if (onward := behind(last, state)) is not None]
        for forgetting in leading(written):
            after = ""
            while gone := await records.gone_with(forgetting, after, PAGE):
                after = gone[-1].memory_id
                yield [Onward(ENRICHED, each) for each in gone]

    return Stage(
        name="record_writer",
        reads=ENRICHED,
        writes=STORED,
        decode=ENRICHED_EVENTS.validate_json,
        react=write,
        follow=follow,
        follows_on=(ENRICHED, EVENTS),
    )


def last_read(changes: Sequence[Enriched], outcomes: Sequence[Outcome]) -> dict[int, UUID]:
    """By their places in the batch: states that others are said beside, where they are a memory's last event.

    One that has come behind a later reading is the last of the log now, and compaction would keep it alone.
    """
    last = {
        memory_key(change.user_id, change.memory_id): place
        for place, change in enumerate(changes)
        if not isinstance(change, UserForgotten)
    }
    return {
        place: key
        for key, place in last.items()
        if outcomes[place] == "stored" and _is_heard(changes[place])
    }


def _is_heard(change: Enriched) -> bool:
    return isinstance(change, MemoryEnriched) and (
        change.run_id is not None or change.context > 0 or bool(change.preceding)
    )


def outlived(written: Done) -> dict[UUID, Enriched]:
    """By key: the last event of each memory, where another than its state is the record's by forgetting.

    What came late, after its forgetting; and forgettings that came late themselves.
    """
    last = {
        memory_key(change.user_id, change.memory_id): (change, notice)
        for change, notice in written
        if not isinstance(change, UserForgotten)
    }
    return {key: change for key, (change, notice) in last.items() if _is_outlived(change, notice)}


def _is_outlived(change: Enriched, notice: Stored) -> bool:
    assert isinstance(notice, MemoryStored)
    if isinstance(change, MemoryForgotten):
        return notice.outcome != "stored"
    return notice.outcome == "forgotten"


def behind(last: dict[UUID, Enriched], state: Published) -> Onward | None:
    """What to say behind the last event of a memory, so that the log ends with the record's `state`.

    None where a forgetting is the last already: of two forgettings either will do, and it would not end.
    """
    assert not isinstance(state, UserForgotten)
    if not isinstance(state, MemoryForgotten):
        # With its vectors again, which the record does not keep.
        return Onward(EVENTS, state)
    if isinstance(last[memory_key(state.user_id, state.memory_id)], MemoryForgotten):
        return None
    return Onward(ENRICHED, state)


def leading(written: Done) -> Sequence[UserForgotten]:
    """One copy of each user's forgetting, all of which erase the same: the first partition's."""
    return [
        change
        for change, _ in written
        if isinstance(change, UserForgotten) and change.partition == 0
    ]
