"""Whether a process still drinks, and whether what it drinks does it good.

A broker that answers a ping says nothing about a consumer whose loop has died. The age of its last poll
does. A subscription that polls may still come to nothing: its neighbour is down, or most of what it reads
cannot be used.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal


class Liveness:
    """When each subscription last asked for more. One that is still waiting for more is alive."""

    def __init__(
        self, *, limit_s: float = 300.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._now = now
        self._polled_at: dict[str, float] = {}
        self._polling: set[str] = set()
        self._limits_s: dict[str, float] = {}
        self.troubles: dict[str, str] = {}
        """Why a subscription does not do well at the moment, by its name."""

    def allow(self, name: str, limit_s: float) -> None:
        """The subscription `name` may be so long without a poll."""
        self._limits_s[name] = limit_s

    @contextmanager
    def polling(self, name: str) -> Generator[None]:
        """The subscription `name` asks for more for the time of the block."""
        self._polling.add(name)
        self._polled_at[name] = self._now()
        try:
            yield
        finally:
            self._polling.discard(name)
            self._polled_at[name] = self._now()

    def poll_age_s(self) -> dict[str, float]:
        """Seconds since the last poll ended, by subscription; 0 during one."""
        now = self._now()
        return {
            name: 0.0 if name in self._polling else now - at for name, at in self._polled_at.items()
        }

    @property
    def alive(self) -> bool:
        """Whether no subscription is longer without a poll than a batch may take."""
        ages = self.poll_age_s().items()
        return all(age <= self._limits_s.get(name, self._limit_s) for name, age in ages)

    @property
    def state(self) -> Literal["starting", "ready", "degraded", "stuck"]:
        """In one word: degraded while there are troubles, stuck when a loop has died."""
        if not self._polled_at:
            return "starting"
        if not self.alive:
            return "stuck"
        return "degraded" if self.troubles else "ready"
