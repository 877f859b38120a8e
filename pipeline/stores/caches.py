"""What is dear to compute, kept near: in this process within a budget of bytes, and behind that in Redis.

    tier 0   this process: the least recently used goes when there is no room
    tier 2   Redis or Valkey: shared by all processes, outlives them

Each is asked for what the one before it lacks, and what a farther one has is then kept nearer.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cachetools import TLRUCache

from pipeline import metrics
from pipeline.ports import Cache
from schemas.search import CacheState

ENTRY_BYTES: Final = 500
"""What Python takes for an entry beside its value, measured."""
_NEARER_FOR_S: Final = 3_600
"""How long tier 0 keeps what it has from a farther one, which does not tell how long it would."""

Kind = Literal["vectors", "answers", "memories"]
Tier = Literal[0, 2]


@dataclass
class Tally:
    """What one tier had of one kind of thing, and had not."""

    kind: Kind
    tier: Tier = 0
    hits: int = 0
    misses: int = 0
    held_bytes: int = 0
    """What it keeps, where nobody else counts that."""

    @property
    def state(self) -> CacheState:
        return CacheState(kind=self.kind, tier=self.tier, hits=self.hits, misses=self.misses)

    def count(self, *, hits: int, misses: int) -> None:
        self.hits += hits
        self.misses += misses
        metrics.CACHE_HITS.labels(self.kind, self.tier).inc(hits)
        metrics.CACHE_MISSES.labels(self.kind, self.tier).inc(misses)


class HotCache:
    """Cache in this process, of `max_bytes` in all."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept = _Kept(max_bytes)

    @property
    def held_bytes(self) -> int:
        """What is kept now."""
        return int(self._kept.currsize)

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        entries = [self._kept.get(key) for key in keys]
        return [entry[1] if entry else None for entry in entries]

    async def put_many(self, entries: Mapping[str, bytes], *, ttl_s: int) -> None:
        until = time.monotonic() + ttl_s
        for key, value in entries.items():
            if _size((until, value)) <= self.max_bytes:
                self._kept[key] = (until, value)
        metrics.CACHE_BYTES.set(self.held_bytes)

    async def close(self) -> None:
        self._kept.clear()


_Entry = tuple[float, bytes]
"""Until when, and what."""


def _size(entry: _Entry) -> int:
    return len(entry[1]) + ENTRY_BYTES


class _Kept(TLRUCache[str, _Entry]):
    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, lambda _, entry, __: entry[0], time.monotonic, _size)

    def popitem(self) -> tuple[str, _Entry]:
        metrics.CACHE_EVICTIONS.inc()
        return super().popitem()


class TieredCache:
    """Cache over caches, the nearest first, that counts what each had of one kind of thing."""

    def __init__(self, kind: Kind, tiers: Mapping[Tier, Cache]) -> None:
        self._tiers = tiers
        self._tallies = {tier: Tally(kind, tier) for tier in tiers}

    @property
    def states(self) -> Sequence[CacheState]:
        """What each tier had and had not, so far."""
        return [tally.state for tally in self._tallies.values()]

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        found: dict[str, bytes] = {}
        nearer: list[Cache] = []
        for tier, cache in self._tiers.items():
            wanted = [key for key in dict.fromkeys(keys) if key not in found]
            if not wanted:
                break
            told = dict(zip(wanted, await cache.get_many(wanted), strict=True))
            there = {key: value for key, value in told.items() if value is not None}
            self._tallies[tier].count(hits=len(there), misses=len(told) - len(there))
            for each in nearer:
                await each.put_many(there, ttl_s=_NEARER_FOR_S)
            nearer.append(cache)
            found |= there
        return [found.get(key) for key in keys]

    async def put_many(self, entries: Mapping[str, bytes], *, ttl_s: int) -> None:
        for cache in self._tiers.values():
            await cache.put_many(entries, ttl_s=ttl_s)

    async def close(self) -> None:
        """Nothing to do: the tiers are others' too."""


class Caches:
    """What one query desk keeps, and how often that was of use."""

    def __init__(
        self,
        hot: HotCache | None,
        far: Cache | None,
        *,
        vectors: bool = True,
        answers: bool = True,
        memories: bool = False,
        shares_answers: bool = False,
        under: str = "",
    ) -> None:
        """`hot` is tier 0, `far` tier 2; `vectors` and `answers` say what is kept at all, `memories` whether
        the index keeps vectors of users.

        Answers go to tier 2 with `shares_answers`: of no use where generations end with the process.
        `under` is what answers depend on beside questions and memories.
        """
        near: dict[Tier, Cache] = {} if hot is None else {0: hot}
        both: dict[Tier, Cache] = near if far is None else {**near, 2: far}
        places = both if shares_answers else near
        self.vectors = TieredCache("vectors", both if vectors else {})
        """Of questions."""
        self.answers = TieredCache("answers", places) if answers and places else None
        self.memories = Tally("memories") if memories else None
        """Of the vectors of users' memories, which the index keeps."""
        self.under = under
        self._hot, self._far = hot, far

    @property
    def states(self) -> Sequence[CacheState]:
        """What each tier had and had not."""
        told = [*self.vectors.states, *(self.answers.states if self.answers else ())]
        return [*told, *([self.memories.state] if self.memories else ())]

    @property
    def held_bytes(self) -> int:
        """What tier 0 holds."""
        own = self._hot.held_bytes if self._hot else 0
        return own + (self.memories.held_bytes if self.memories else 0)

    async def close(self) -> None:
        for cache in (self._hot, self._far):
            if cache is not None:
                await cache.close()
