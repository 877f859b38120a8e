"""memory.dead: what could not be used, with its bytes, its origin and the reason.

The value, the key and the headers are those of the message that failed, so that publishing it again to
its origin is enough to redrive it. What we know about the failure stands in headers of its own. A letter
that was redriven or dropped stays where it is; what became of it stands behind it.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from pydantic import ValidationError

from pipeline.kafka.records import Headers, Record, event_id_in, legible
from schemas.events import SETTLED, MemorySetAside

PREFIX = "dead-"
REDRIVEN = "redriven"
"""How often it was redriven before; kept when it fails again."""
HALTING_SHARE = 0.5
"""Of the latest messages: where more fail, the topic is not what is broken."""
_REASON_CHARS = 2_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_000
"""The end of the year 9999."""


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


def dead_headers(record: Record, *, stage: str, reason: str, now: datetime) -> Headers:
    """The record's own headers, and where, when and why it failed."""
    told = {
        "stage": stage,
        "reason": reason[:_REASON_CHARS],
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "at": now.isoformat(),
    }
    own = [(name, value) for name, value in legible(record.headers) if not name.startswith(PREFIX)]
    return [*own, *((PREFIX + name, text.encode()) for name, text in told.items())]


def notice(record: Record, *, stage: str, reason: str, now: datetime) -> MemorySetAside | None:
    """Tells whoever waits for the event, if its headers still say which it was."""
    event_id = event_id_in(record)
    if event_id is None:
        return None
    return MemorySetAside(event_id=event_id, stage=stage, reason=reason[:_REASON_CHARS], at=now)


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
