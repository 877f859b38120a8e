"""What the record, the index and the topics hold, read past the code that wrote it.

Content hashes are made anew from the content: a store that kept the right hash beside the wrong text
does not get away with it.
"""

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer

from pipeline.chaos.checking import Held, Letter
from pipeline.chaos.conversations import Reading, Turn
from pipeline.chaos.finding import MemoryName
from pipeline.chaos.lives import Recall, Standing
from pipeline.domain.identity import content_hash, context_hash
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import stopped_consumer
from pipeline.kafka.lag import topic_partitions
from pipeline.kafka.records import Record, legible
from schemas.events import MemoryCaptured, Said

_SAID = ("text", "occurred_at", "speaker", "agent_id", "app_id", "run_id", "metadata")
_PLACED = ("version", "event_id", "heard", "context")
_PAGE = 1_000
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class InRecord:
    """What Postgres holds."""

    held: Sequence[Held]
    """Every row, tombstones too."""
    turns: Sequence[Turn]
    lives: Mapping[MemoryName, Standing]
    hours: Mapping[MemoryName, set[int]]


@dataclass(frozen=True)
class InIndex:
    """What Qdrant Edge holds."""

    held: Sequence[Held]
    """Every point, tombstones too."""
    contexts: Mapping[MemoryName, int]
    lives: Mapping[MemoryName, Standing]


async def read_record(dsn: str) -> InRecord:
    """Memories, conversations and lives."""
    import asyncpg

    fields = ", ".join(("user_id", "memory_id", "forgotten", *_SAID, *_PLACED))
    connection = await asyncpg.connect(dsn)
    try:
        rows = await _rows(connection, f"select {fields} from memories")  # noqa: S608
        of_life = (
            "select user_id, memory_id, life, told from memory_lives join memories using (key)"
        )
        lives = await _rows(connection, of_life)
    finally:
        await connection.close()
    return InRecord(
        held=[
            Held(*_name(row), None if row["forgotten"] else _content_of_row(row)) for row in rows
        ],
        turns=[_turn(row) for row in rows if row["run_id"] and not row["forgotten"]],
        lives={_name(row): _standing(_life_told(json.loads(row["told"]))) for row in lives},
        hours={_name(row): set(json.loads(row["life"])["uses"]) for row in lives},
    )


async def _rows(connection: Any, statement: str) -> Sequence[Mapping[str, Any]]:
    return [dict(row) for row in await connection.fetch(statement)]


def _name(row: Mapping[str, Any]) -> MemoryName:
    return (row["user_id"], row["memory_id"])


def _turn(row: Mapping[str, Any]) -> Turn:
    said = {name: row[name] for name in ("text", "speaker", "occurred_at")}
    return Turn(
        _name(row),
        row["run_id"],
        Said.model_validate(said),
        *(row[name] for name in _PLACED),
    )


def _life_told(told: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**told, "life": told["version"]}


def _standing(told: Mapping[str, Any]) -> Standing:
    moments = [told.get(name) for name in ("recalled_at", "medium_until", "long_until")]
    recalled, medium, long = (datetime.fromisoformat(m) if m else None for m in moments)
    return Standing(
        told["life"],
        told["strength"],
        recalled,
        medium,
        long,
        told.get("archived_version"),
        frozenset(told.get("consolidated") or ()),
    )


def _content_of_row(row: Mapping[str, Any]) -> str:
    fields = {name: row[name] for name in _SAID}
    return _content({**fields, "metadata": json.loads(fields["metadata"])})


def read_index(qdrant_path: Path) -> InIndex:
    """The Edge index but the watermarks of users. Nobody else may have it open."""
    payloads = [each for each in _payloads(qdrant_path) if each["kind"] != "user_forgotten"]
    living = [each for each in payloads if each["kind"] == "memory"]
    return InIndex(
        held=[_held(payload) for payload in payloads],
        contexts={_name(each): each.get("context", 0) for each in living},
        # A life that a tombstone took along would be one too many.
        lives={_name(each): _standing(each) for each in payloads if "life" in each},
    )


def _payloads(qdrant_path: Path) -> Sequence[Mapping[str, Any]]:
    import qdrant_edge as edge

    shard = edge.EdgeShard.load(str(qdrant_path / "index" / "shard"))
    payloads: list[Mapping[str, Any]] = []
    offset: Any = None
    try:
        while True:
            request = edge.ScrollRequest(offset=offset, limit=_PAGE, with_payload=True)
            records, offset = shard.scroll(request)
            payloads += [record.payload or {} for record in records]
            if offset is None:
                return payloads
    finally:
        shard.close()


def _held(payload: Mapping[str, Any]) -> Held:
    content = None
    if payload["kind"] == "memory":
        fields = {name: payload.get(name) for name in _SAID}
        fields["occurred_at"] = datetime.fromisoformat(payload["occurred_at"])
        content = _content(fields)
    return Held(payload["user_id"], payload["memory_id"], content)


def _content(fields: Mapping[str, Any]) -> str:
    return content_hash(MemoryCaptured.model_construct(**fields))


async def read_log(kafka: KafkaConnection, topic: str) -> Counter[UUID]:
    """How many records of each event its publisher has left in the log.

    What a stage said again tells so: it has been there.
    """
    found: Counter[UUID] = Counter()
    async for record in every_record(kafka, topic):
        event = _object(record.value)
        event_id = _uuid(event.get("event_id"))
        if event_id is not None and not event.get("hops"):
            found[event_id] += 1
    return found


@dataclass(frozen=True)
class Notices:
    """What the stores told."""

    done: frozenset[tuple[UUID, str, int]]
    """Which store has done with which event, and of which partition's copy."""
    stored_at_ms: Mapping[MemoryName, int]
    """When the record told first that it has a memory."""


async def read_notices(kafka: KafkaConnection, topic: str) -> Notices:
    """What the stores told."""
    done: set[tuple[UUID, str, int]] = set()
    stored_at_ms: dict[MemoryName, int] = {}
    async for record in every_record(kafka, topic):
        notice = _object(record.value)
        event_id = _uuid(notice.get("event_id"))
        if event_id is None or "store" not in notice:
            continue
        done.add((event_id, str(notice["store"]), int(notice.get("partition", 0))))
        if notice["store"] == "record" and notice.get("outcome") == "stored":
            before = stored_at_ms.get(_name(notice), record.timestamp)
            stored_at_ms[_name(notice)] = min(before, record.timestamp)
    return Notices(frozenset(done), stored_at_ms)


async def read_recalls(kafka: KafkaConnection, topic: str) -> list[Recall]:
    """Every recall in the log, those that were told twice too."""
    events = [(record, _object(record.value)) async for record in every_record(kafka, topic)]
    return [
        Recall(_name(event), _ms(event["at"]) // _HOUR_MS, record.timestamp)
        for record, event in events
        if event.get("type") == "MemoryRecalled"
    ]


def _ms(moment: str) -> int:
    since = datetime.fromisoformat(moment) - datetime.fromtimestamp(0, UTC)
    return int(since.total_seconds() * 1_000)


async def read_readings(kafka: KafkaConnection, topic: str) -> Mapping[Reading, set[str]]:
    """What was heard in each making of a memory's vectors; a hash that stands for the texts beside it."""
    readings: defaultdict[Reading, set[str]] = defaultdict(set)
    async for record in every_record(kafka, topic):
        event = _object(record.value)
        event_id = _uuid(event.get("event_id"))
        if event_id is not None and event.get("run_id"):
            sides = [event.get(name) or () for name in ("preceding", "following")]
            before, after = ([Said.model_validate(said) for said in side] for side in sides)
            readings[event_id, event.get("context", 0)].add(context_hash(before, after))
    return readings


async def read_letters(kafka: KafkaConnection, topic: str) -> list[Letter]:
    """Every dead letter, those that a crash wrote twice too."""
    return [_letter(record) async for record in every_record(kafka, topic)]


def _letter(record: Record) -> Letter:
    # Those behind a forged one of the same name are ours.
    headers = {name: value.decode("utf-8", "replace") for name, value in legible(record.headers)}
    return Letter(
        stage=headers["dead-stage"],
        key=(record.key or b"").decode("utf-8", "replace"),
        event_id=_uuid(_object(record.value).get("event_id")),
        reason=headers["dead-reason"],
    )


async def every_record(kafka: KafkaConnection, topic: str) -> AsyncIterator[Record]:
    """The records of a topic, up to where it ends now."""
    partitions = await topic_partitions(kafka, topic)
    consumer: Any = AIOKafkaConsumer(
        **kafka.options(), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        left = {tp for tp in partitions if ends[tp] > 0}
        while left:
            polled = await consumer.getmany(timeout_ms=500)
            for records in polled.values():
                for record in records:
                    yield record
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    finally:
        await stopped_consumer(consumer)


def _object(value: bytes | None) -> Mapping[str, Any]:
    try:
        told = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(str(text))
    except ValueError:
        return None
