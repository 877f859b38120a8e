"""memory.dead: what could not be used, with its bytes, its origin and the reason.

The value, the key and the headers are those of the message that failed, so that publishing it again to
its origin is enough to redrive it. What we know about the failure stands in headers of its own.
"""

from collections import deque
from datetime import UTC, datetime

from pipeline.kafka.records import Headers, Record, event_id_in, legible
from schemas.events import MemorySetAside

PREFIX = "dead-"
_REASON_CHARS = 2_000


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

    When most of the latest messages fail, the topic is not what is broken.
    """

    def __init__(self, *, window: int = 1_000, least: int = 100, share: float = 0.5) -> None:
        self._failed: deque[bool] = deque(maxlen=window)
        self._least = least
        self._share = share

    def exceeded_by(self, *, failed: int, used: int) -> bool:
        """Counts one batch; True when more than the allowed share of the window has failed."""
        self._failed.extend([True] * failed + [False] * used)
        seen = len(self._failed)
        return seen >= self._least and sum(self._failed) > self._share * seen
