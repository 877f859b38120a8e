"""The cache as a dict without a limit, for tests of what stands above it: a Redis that can be looked into."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class CacheInMemory:
    """Cache in a dict."""

    _entries: dict[str, tuple[float, bytes]] = field(default_factory=dict[str, tuple[float, bytes]])

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        now = time.monotonic()
        there = [self._entries.get(key, (0.0, b"")) for key in keys]
        return [value if until > now else None for until, value in there]

    async def put_many(self, entries: Mapping[str, bytes], *, ttl_s: int) -> None:
        until = time.monotonic() + ttl_s
        self._entries.update({key: (until, value) for key, value in entries.items()})

    async def close(self) -> None:
        pass
