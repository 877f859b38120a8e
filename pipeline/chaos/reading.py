"""What the record, the index and the topics hold, read past the code that wrote it.

Content hashes are made anew from the content: a store that kept the right hash beside the wrong text
does not get away with it.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer

from pipeline.chaos.checking import Held, Letter
from pipeline.domain.identity import content_hash
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import topic_partitions
from pipeline.kafka.records import Record, legible
from schemas.events import MemoryCaptured

_SAID = ("text", "occurred_at", "speaker", "agent_id", "app_id", "run_id", "metadata")
_PAGE = 1_000


async def read_record(dsn: str) -> list[Held]:
    """Every row of Postgres, tombstones too."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            f"select user_id, memory_id, forgotten, {', '.join(_SAID)} from memories"  # noqa: S608
        )
    finally:
        await connection.close()
    return [
        Held(
            row["user_id"],
            row["memory_id"],
            None if row["forgotten"] else _content_of_row(dict(row)),
        )
        for row in rows
    ]


def _content_of_row(row: Mapping[str, Any]) -> str:
    fields = {name: row[name] for name in _SAID}
    return _content({**fields, "metadata": json.loads(fields["metadata"])})


def read_index(qdrant_path: Path) -> list[Held]:
    """Every point of the Edge index but the watermarks of users. Nobody else may have it open."""
    import qdrant_edge as edge

    shard = edge.EdgeShard.load(str(qdrant_path / "index" / "shard"))
    held: list[Held] = []
    offset: Any = None
    try:
        while True:
            request = edge.ScrollRequest(offset=offset, limit=_PAGE, with_payload=True)
            records, offset = shard.scroll(request)
            payloads = [record.payload or {} for record in records]
            held += [_held(payload) for payload in payloads if payload["kind"] != "user_forgotten"]
            if offset is None:
                return held
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


async def read_notices(kafka: KafkaConnection, topic: str) -> frozenset[tuple[UUID, str, int]]:
    """Which store told that it has done with which event, and of which partition's copy."""
    told: set[tuple[UUID, str, int]] = set()
    async for record in every_record(kafka, topic):
        notice = _object(record.value)
        event_id = _uuid(notice.get("event_id"))
        if event_id is not None and "store" in notice:
            told.add((event_id, str(notice["store"]), int(notice.get("partition", 0))))
    return frozenset(told)


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
        await consumer.stop()


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
