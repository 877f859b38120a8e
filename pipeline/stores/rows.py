"""Rows of the record -> what they say, and back.

JSON carries what is written, so that one statement takes a batch. What is read comes in Postgres' own types.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from pydantic import JsonValue

from pipeline.domain.identity import content_hash, memory_key
from pipeline.domain.versions import Known, Stamp, erased, stamp
from pipeline.ports import Believed, Belonging, Fingerprint
from pipeline.stores.lives import LIFE, KeptLife, standing_of, told_of
from pipeline.stores.states import Erased, MemoryChange, Recorded, State, Watermark, known_of
from schemas.events import (
    MemoryCaptured,
    MemoryClassified,
    MemoryEnriched,
    MemoryForgotten,
    MemoryTiered,
    Said,
    UserForgotten,
)
from schemas.search import RecordedMemory


def known_of_row(row: asyncpg.Record) -> Known:
    return Known(Stamp(row["precedence"], row["tie"]), row["forgotten"])


def fingerprint_of(row: asyncpg.Record) -> Fingerprint:
    known = known_of_row(row)
    return Fingerprint(row["key"], known, row["content_hash"], row["watermark"], row["life"])


def user_forgotten_of(row: asyncpg.Record) -> UserForgotten:
    return UserForgotten(**row, partition=0, partitions=1)


def gone_of(row: asyncpg.Record) -> MemoryForgotten:
    """A row that `erased` has stamped: its event is the user's forgetting."""
    by = Watermark(row["version"], row["event_id"], row["published_at"])
    return Erased(row["user_id"], row["memory_id"], by).told


def published_of(row: asyncpg.Record) -> MemoryCaptured | MemoryForgotten:
    if known_of_row(row) == erased(row["version"]):
        return gone_of(row)
    if row["forgotten"]:
        return MemoryForgotten(**_event(row))
    return MemoryCaptured(**_event(row), **_state(row))


def classified_of(row: asyncpg.Record) -> MemoryClassified:
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


def watermark_of(row: asyncpg.Record) -> Watermark:
    return Watermark(row["version"], row["event_id"], row["published_at"])


def recorded_memory_of(row: asyncpg.Record) -> RecordedMemory:
    fields = _fields(row) | {"preceding": json.loads(row["preceding"] or "[]")}
    told, precedence = told_of(fields.pop("told")), fields.pop("precedence")
    return RecordedMemory(**fields, **standing_of(told, precedence, datetime.now(UTC)))


def believed_of(row: asyncpg.Record) -> Believed:
    state = MemoryCaptured(**_event(row), **_said_in(row))
    return Believed(state, row["newest"], told_of(row["told"]))


def belonging_of(row: asyncpg.Record) -> Belonging:
    fields = _fields(row)
    fields["told"] = told_of(fields["told"])
    return Belonging(**fields)


def kept_life_of(row: asyncpg.Record) -> KeptLife:
    life = LIFE.validate_json(row["life"])
    return KeptLife(life, MemoryTiered.model_validate_json(row["told"]))


def recorded_of(row: asyncpg.Record) -> Recorded:
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


def memory_row(
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


def state_row(change: MemoryChange, marks: Mapping[str, Watermark]) -> dict[str, Any]:
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


def life_row(key: UUID, kept: KeptLife) -> dict[str, Any]:
    life = LIFE.dump_python(kept.life, mode="json")
    return {"key": str(key), "life": life, "told": kept.told.model_dump(mode="json")}


def said_once(event: MemoryEnriched) -> dict[str, Any]:
    key, place = str(memory_key(event.user_id, event.memory_id)), stamp(event)
    said = event.model_dump(include={"user_id", "text"})
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
