"""memory.enriched, from its beginning: does the record hold what the log holds?

The record must have each state of the log, or a newer one. Where it has not, once the writers have read
so far, the state was lost on its way: the log can give it again.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from pipeline.domain.identity import content_hash, memory_key, user_key
from pipeline.domain.versions import Known, Stamp, placed, stamp
from pipeline.errors import Unusable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.reading import enriched_of, event_of
from pipeline.kafka.records import Record
from pipeline.kafka.replaying import replayed
from pipeline.ports import Fingerprint, Fingerprints
from pipeline.verifying.comparing import Difference
from pipeline.verifying.verifying import ROUNDS, Progress, Readers, Report
from schemas.events import MemoryForgotten, MemoryState, UserForgotten


class _Remembered(MemoryState):
    """A MemoryEnriched without its vectors, which are most of its bytes."""

    type: Literal["MemoryEnriched"] = "MemoryEnriched"


_Logged = _Remembered | MemoryForgotten | UserForgotten
_LOGGED: TypeAdapter[_Logged] = TypeAdapter(Annotated[_Logged, Field(discriminator="type")])


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the log, as fingerprints see it."""

    record: Record
    told: Fingerprint
    user: UUID
    """The key of the user whose memory it is."""


Lost = Callable[[Sequence[Record]], Awaitable[None]]
"""What to do with records of the log that the record has not."""


async def compare_log(
    connection: KafkaConnection,
    topic: str,
    record: Fingerprints,
    readers: Readers,
    report: Report,
    *,
    take: Lost,
    on_progress: Progress,
) -> None:
    """Asks the record about all that the log holds, and gives what it has not to `take`."""
    async with aclosing(replayed(connection, topic)) as batches:
        async for batch in batches:
            entries = [entry for each in batch.records if (entry := entry_of(each)) is not None]
            lost, open_ = await settled(entries, record, readers)
            report.logged += len(batch.records)
            report.add([_difference(entry, held) for entry, held in lost])
            report.in_flight += len(open_)
            if lost:
                await take([entry.record for entry, _ in lost])
            on_progress(batch.fraction, report.logged)


def entry_of(record: Record) -> Entry | None:
    """None for what is no event of ours: the stages set it aside, both stores are without it."""
    try:
        event = event_of(record, _LOGGED.validate_json)
    except Unusable:
        return None
    user = user_key(event.user_id)
    if isinstance(event, UserForgotten):
        known = Known(Stamp(event.version, 0), forgotten=True)
        return Entry(record, Fingerprint(user, known, "", watermark=True), user)
    key = memory_key(event.user_id, event.memory_id)
    if isinstance(event, MemoryForgotten):
        return Entry(record, Fingerprint(key, Known(stamp(event), forgotten=True), ""), user)
    place = placed(event.event_id, event.version, yields=event.if_absent)
    return Entry(record, Fingerprint(key, Known(place), content_hash(event)), user)


def newest(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The winning state of each key; of equal ones the last."""
    best: dict[UUID, Entry] = {}
    for entry in entries:
        there = best.get(entry.told.key)
        if there is None or there.told.known.stamp <= entry.told.known.stamp:
            best[entry.told.key] = entry
    return list(best.values())


Found = tuple[Entry, Fingerprint | None]


async def settled(
    entries: Sequence[Entry], record: Fingerprints, readers: Readers
) -> tuple[Sequence[Found], Sequence[Found]]:
    """What the record has not, and what nobody can tell of yet."""
    before = await _usable(entries, record)
    lost: list[Found] = []
    for _ in range(ROUNDS):
        if not before or not await readers.caught_up():
            break
        now = await _lacking([entry for entry, _ in before], record)
        held_before = {entry.told.key: held for entry, held in before}
        lost += [each for each in now if each[1] == held_before[each[0].told.key]]
        before = [each for each in now if each[1] != held_before[each[0].told.key]]
    return lost, before


async def _usable(entries: Sequence[Entry], record: Fingerprints) -> Sequence[Found]:
    """The newest entries that the record lacks, without those that the stages set aside for their vectors."""
    while lacking := await _lacking(newest(entries), record):
        aside = {id(entry) for entry, _ in lacking if enriched_of(entry.record) is None}
        if not aside:
            break
        entries = [entry for entry in entries if id(entry) not in aside]
    return lacking


async def _lacking(entries: Sequence[Entry], record: Fingerprints) -> Sequence[Found]:
    if not entries:
        return []
    keys = {key for entry in entries for key in (entry.told.key, entry.user)}
    there = {each.key: each for each in await record.fingerprints_of(list(keys))}
    found = ((e, there.get(e.told.key), there.get(e.user)) for e in entries)
    return [(entry, held) for entry, held, mark in found if lacks(entry.told, held, mark)]


def lacks(logged: Fingerprint, held: Fingerprint | None, mark: Fingerprint | None) -> bool:
    """Whether a store that holds `held`, and forgot the user up to `mark`, has not done with `logged`."""
    version = logged.known.stamp.version
    if mark is not None and version <= mark.known.stamp.version:
        return False
    if held is None or held.known.stamp < logged.known.stamp:
        return True
    return held.known.stamp == logged.known.stamp and held != logged


def _difference(entry: Entry, held: Fingerprint | None) -> Difference:
    same = held is not None and held.known.stamp == entry.told.known.stamp
    kind = "content_differs_from_log" if same else "missing_in_record_but_in_log"
    return Difference(entry.told.key, kind, held, None)
