"""What a record looks like on the wire: key, value, headers.

The key of a memory's events is made of its user and its id, so that one memory has one partition and
one order, and a compacted topic keeps one state of each. Headers repeat what a reader wants before it
opens the value, and what is still legible when the value is not.
"""

from collections.abc import Iterable, Sequence
from typing import cast
from uuid import UUID

from aiokafka import ConsumerRecord

from pipeline.domain.identity import memory_key, user_key
from schemas.events import Event, MemoryEvent, MemoryRedriven, MemorySetAside, Message

Headers = Sequence[tuple[str, bytes]]
"""Headers of ours, as aiokafka takes them."""
Record = ConsumerRecord[bytes, bytes]
"""A record as it came. Its headers may be anything: null, bytes that are no text."""


class Unread(bytes):
    """The value, empty, of a record that stands for those that were too much to be read."""

    why: str

    def __new__(cls, why: str) -> "Unread":
        unread = super().__new__(cls)
        unread.why = why
        return unread


def group_of(prefix: str, stage: str) -> str:
    """The consumer group of a stage."""
    return f"{prefix}.{stage}"


def key_of(message: Message) -> bytes | None:
    """The record's key; None where order does not matter."""
    match message:
        case MemoryEvent():
            return str(memory_key(message.user_id, message.memory_id)).encode()
        case Event():
            return str(user_key(message.user_id)).encode()
        case _:
            return None


def value_of(message: Message) -> bytes:
    """JSON in UTF-8; bytes within it as URL-safe base64."""
    return message.model_dump_json(exclude_none=True).encode()


def headers_of(message: Message) -> dict[str, str]:
    """The event's type and id."""
    headers = {"content-type": "application/json", "type": type(message).__name__}
    if isinstance(message, Event | MemorySetAside | MemoryRedriven):
        headers["event-id"] = str(message.event_id)
    return headers


def as_pairs(headers: dict[str, str]) -> Headers:
    """Headers as aiokafka takes them."""
    return [(name, value.encode()) for name, value in headers.items()]


def legible(headers: Iterable[tuple[str, object]]) -> Headers:
    """The headers that have a value; Kafka allows null ones."""
    # The same pairs, for there may be millions.
    return cast("Headers", [each for each in headers if isinstance(each[1], bytes)])


def event_id_in(record: Record) -> UUID | None:
    """The event id in the headers, if there is a legible one."""
    named = dict(legible(record.headers))
    try:
        return UUID(named.get("event-id", b"").decode("utf-8", "replace"))
    except ValueError:
        return None
