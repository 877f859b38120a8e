"""Events with sensible defaults, so that a test shows only what it is about."""

from typing import Any
from uuid import uuid4

from pipeline.domain.clock import VersionClock, moment_of
from schemas.events import MemoryCaptured

_clock = VersionClock()


def captured(text: str = "I love spicy Thai food", **fields: Any) -> MemoryCaptured:
    """A captured memory of alice."""
    version = fields.pop("version", None) or _clock.next()
    moment = moment_of(version)
    defaults = {
        "event_id": uuid4(),
        "user_id": "alice",
        "memory_id": str(uuid4()),
        "version": version,
        "published_at": moment,
        "occurred_at": moment,
    }
    return MemoryCaptured(text=text, **(defaults | fields))
