"""Versions from the clock: microseconds since 1970, and never the same one twice from one clock."""

import time
from datetime import UTC, datetime, timedelta


class VersionClock:
    """Later calls give greater versions, even when the clock is set back or two calls meet in a tick."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The version of what happens now."""
        self._last = max(self._last + 1, time.time_ns() // 1_000)
        return self._last


def moment_of(version: int) -> datetime:
    """When a version was made."""
    return datetime.fromtimestamp(version / 1_000_000, UTC)


def version_at(moment: datetime) -> int:
    """The version that would be made at a moment."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
