"""memory.dead: what could not be used, with its bytes, its origin and the reason.

The value, the key and the headers are those of the message that failed, so that publishing it again to
its origin is enough to redrive it. What we know about the failure stands in headers of its own: also what
had to be cut of a message that is too large, without whose whole value and key there is nothing to redrive.
A letter that was redriven or dropped stays where it is; what became of it stands behind it.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from pydantic import ValidationError

from pipeline.kafka.records import Headers, Record, Unread, event_id_in, legible
from schemas.events import SETTLED, MemorySetAside

PREFIX = "dead-"
REDRIVEN = "redriven"
"""How often it was redriven before; kept when it fails again."""
HALTING_SHARE = 0.5
"""Of the latest messages: where more fail, the topic is not what is broken."""
_FIRST_KEPT = ("event-id", REDRIVEN, "type", "content-type")
"""Of headers that are too many: what tells of the message, and what redriving needs."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_000
"""The end of the year 9999."""


class Most(NamedTuple):
    """How much of a message is kept. Compressed, one can be far larger than what Kafka takes from us."""

    value_bytes: int
    key_bytes: int
    headers_bytes: int
    reason_chars: int


WHOLE = Most(2 * 1024 * 1024, 1_024, 64 * 1024, 2_000)
STUB = Most(1_024, 256, 1_024, 500)
"""Where Kafka takes no more."""


class Kept(NamedTuple):
    """What is kept of a message."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    """Its own."""
    cut: Sequence[str]
    """Which of value, key and headers are not whole."""
    told: str
    """The same for people, in front of the reason; empty where all is kept."""


class Place(NamedTuple):
    """Where a letter stands in memory.dead."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True)
class Letter:
    """One dead letter, as far as its headers tell: "?" and None stand for what they do not."""

    record: Record
    at: datetime
    stage: str
    reason: str
    topic: str
    partition: int | None
    offset: int | None
    event_id: UUID | None
    redriven: int
    cut: Sequence[str] = ()
    """Which of value, key and headers were too large to be kept whole."""

    @property
    def is_whole(self) -> bool:
        """Whether there is something to redrive: no stage needs what else was in the headers."""
        return not {"value", "key"} & {*self.cut}

    @property
    def place(self) -> Place:
        return Place(self.record.partition, self.record.offset)

    @property
    def origin(self) -> str:
        """topic/partition/offset"""
        known = (part if part is not None else "?" for part in (self.partition, self.offset))
        return "/".join([self.topic, *map(str, known)])


@dataclass(frozen=True)
class Selection:
    """Which letters: those that meet every condition that is given."""

    places: Collection[Place] | None = None
    stage: str | None = None
    reason: str | None = None
    """A part of the reason, in any case."""
    since: datetime | None = None
    until: datetime | None = None

    def takes(self, letter: Letter) -> bool:
        return (
            (self.places is None or letter.place in self.places)
            and (self.stage is None or letter.stage == self.stage)
            and (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
        )


def letter_of(record: Record) -> Letter:
    """What a dead letter's headers tell, whatever they hold."""
    named = {name: value.decode("utf-8", "replace") for name, value in legible(record.headers)}
    own = {field: named.get(PREFIX + field) for field in ("stage", "reason", "topic")}
    return Letter(
        record=record,
        at=_moment(named.get(f"{PREFIX}at"), record.timestamp),
        partition=_number(named.get(f"{PREFIX}partition")),
        offset=_number(named.get(f"{PREFIX}offset")),
        event_id=event_id_in(record),
        redriven=_number(named.get(REDRIVEN)) or 0,
        cut=tuple(filter(None, named.get(f"{PREFIX}cut", "").split(","))),
        **{field: told or "?" for field, told in own.items()},
    )


def settled_by(record: Record) -> Place | None:
    """The letter that this record settles; None where it is a letter itself."""
    if any(name.startswith(PREFIX) for name, _ in record.headers):
        return None
    try:
        told = SETTLED.validate_json(record.value or b"")
    except ValidationError:
        return None
    return Place(record.partition, told.offset)


def kept_of(record: Record, most: Most) -> Kept:
    """As much of a record as may be, and what that leaves out."""
    if isinstance(record.value, Unread):
        return Kept(None, b"", (), ("value", "key", "headers"), "")
    own = [each for each in legible(record.headers) if not each[0].startswith(PREFIX)]
    headers = _within(own, most.headers_bytes, event_id_in(record))
    # A record may have neither key nor value, which no producer would publish.
    value = b"" if record.key is None and record.value is None else record.value
    parts = {
        "value": (value, most.value_bytes),
        "key": (record.key, most.key_bytes),
    }
    cut = [name for name, (part, bytes_) in parts.items() if len(part or b"") > bytes_]
    told = [f"{parts[name][1]} of {len(parts[name][0] or b'')} bytes of its {name}" for name in cut]
    if headers is not own:
        cut.append("headers")
        told.append(f"{len(headers)} of its {len(own)} headers")
    return Kept(
        key=record.key[: most.key_bytes] if record.key is not None else None,
        value=value[: most.value_bytes] if value is not None else None,
        headers=headers,
        cut=cut,
        told=f"Only the first {', '.join(told)} are kept. " if told else "",
    )


def _within(own: Headers, most_bytes: int, event_id: UUID | None) -> Headers:
    """The same headers where they are no larger than that; else those that fit, what matters first."""
    if sum(map(_size, own)) <= most_bytes:
        return own
    first = [each for name in _FIRST_KEPT for each in own if each[0] == name]
    if event_id is not None:
        # Whatever form it came in: who looks for the event needs no more than this.
        own_id = ("event-id", str(event_id).encode())
        first = [own_id, *(each for each in first if each[0] != "event-id")]
    kept: list[tuple[str, bytes]] = []
    for header in [*first, *(each for each in own if each[0] not in _FIRST_KEPT)]:
        if _size(header) <= most_bytes:
            most_bytes -= _size(header)
            kept.append(header)
    return kept


def _size(header: tuple[str, bytes]) -> int:
    """At least what it takes on the wire."""
    name, value = header
    return len(name.encode()) + len(value) + 10


def dead_headers(
    record: Record, *, stage: str, reason: str, now: datetime, kept: Kept | None = None
) -> Headers:
    """The record's own headers, and where, when and why it failed."""
    kept = kept or kept_of(record, WHOLE)
    told = {
        "stage": stage,
        "reason": reason[: WHOLE.reason_chars],
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "at": now.isoformat(),
    }
    if kept.cut:
        told["cut"] = ",".join(kept.cut)
    return [*kept.headers, *((PREFIX + name, text.encode()) for name, text in told.items())]


def notice(record: Record, *, stage: str, reason: str, now: datetime) -> MemorySetAside | None:
    """Tells whoever waits for the event, if its headers still say which it was."""
    event_id = event_id_in(record)
    if event_id is None:
        return None
    return MemorySetAside(
        event_id=event_id, stage=stage, reason=reason[: WHOLE.reason_chars], at=now
    )


def utc_now() -> datetime:
    return datetime.now(UTC)


class DeadLetterLimit:
    """Tells a few bad messages from a fault of ours.

    When most of the latest messages fail, the topic is not what is broken. Most of a whole window: what a
    stage has not seen yet, because it has just started, counts as used. Judged by its first messages
    alone, a stage that starts where somebody has just published a hundred bad ones would halt until a
    person looks, though all that follows is fine; setting some hundreds aside costs nobody anything.
    """

    def __init__(self, *, window: int = 1_000, share: float = HALTING_SHARE) -> None:
        self._failed: deque[bool] = deque(maxlen=window)
        self._window = window
        self._share = share

    def exceeded_by(self, *, failed: int, used: int) -> bool:
        """Whether with one more batch more than the allowed share of the window has failed."""
        return sum(self._with(failed, used)) > self._share * self._window

    def count(self, *, failed: int, used: int) -> None:
        """Counts a batch, once it is dealt with: one that comes back has not failed again."""
        self._failed = self._with(failed, used)

    @property
    def failing(self) -> float:
        """The share of the latest messages that has failed, 0 to 1."""
        return sum(self._failed) / max(len(self._failed), 1)

    def _with(self, failed: int, used: int) -> deque[bool]:
        with_it = self._failed.copy()
        with_it.extend([True] * failed + [False] * used)
        return with_it


def redriven_headers(letter: Letter) -> Headers:
    """The headers that the message had when it failed, and how often it was redriven by now."""
    known = legible(letter.record.headers)
    own = [(n, value) for n, value in known if not n.startswith(PREFIX) and n != REDRIVEN]
    return [*own, (REDRIVEN, str(letter.redriven + 1).encode())]


def _moment(written: str | None, timestamp_ms: int) -> datetime:
    try:
        at = datetime.fromisoformat(written or "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        # Whoever wrote the record may have given it any time at all.
        return _EPOCH + timedelta(milliseconds=min(max(timestamp_ms, 0), _LAST_MS))


def _number(written: str | None) -> int | None:
    # isdigit() holds of superscripts too, and int() of a number without end.
    return int(written) if written and written.isdecimal() and len(written) < 20 else None
