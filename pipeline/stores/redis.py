"""What is dear to compute, kept in Redis or Valkey for a while.

A cache may forget at any time, so a dead one is a miss and nothing more: no call fails, and after a
failure the server is left alone for a moment, so that its absence costs its callers no waiting.
"""

import time
from collections.abc import Mapping, Sequence
from typing import cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

_PREFIX = "hybrid-memory:"


class RedisCache:
    """Cache over one Redis or Valkey server."""

    def __init__(self, url: str, *, timeout_s: float = 0.5, rest_s: float = 5.0) -> None:
        """`url` is redis://, rediss:// or unix://; it may carry a password, which is never logged.

        A call takes `timeout_s` at most; after a failure there are none for `rest_s`.
        """
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._rest_s = rest_s
        self._resting_until = 0.0

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        if not keys or self._is_resting():
            return [None] * len(keys)
        try:
            found = await self._redis.mget([_PREFIX + key for key in keys])
        except (RedisError, OSError) as error:
            self._rest(error)
            return [None] * len(keys)
        return cast("list[bytes | None]", found)

    async def put_many(self, entries: Mapping[str, bytes], *, ttl_s: int) -> None:
        if not entries or self._is_resting():
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, value in entries.items():
                    pipe.set(_PREFIX + key, value, ex=ttl_s)
                await pipe.execute()
        except (RedisError, OSError) as error:
            self._rest(error)

    async def close(self) -> None:
        await self._redis.aclose()

    def _is_resting(self) -> bool:
        return time.monotonic() < self._resting_until

    def _rest(self, error: Exception) -> None:
        self._resting_until = time.monotonic() + self._rest_s
        log.warning("going on without the cache", error=type(error).__name__, rest_s=self._rest_s)
