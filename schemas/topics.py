"""The topics: what each carries, how it is kept, and for how long.

The memory topics have the same number of partitions, so that an event keeps its partition, and with it
its order, from stage to stage.
"""

from dataclasses import dataclass
from typing import Literal

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Topic:
    """One topic, named below a prefix (`memory` unless a cluster's rules want another)."""

    name: str
    about: str
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = 7 * DAY_MS
    """Of a compacted topic: for how long a forgotten key is still told of."""
    min_compaction_lag_ms: int = 0
    """How old a record is at least before a later one of its key may replace it."""
    max_compaction_lag_ms: int | None = None
    """How old one may grow that a later one of its key replaces: what was forgotten goes by then."""
    max_message_bytes: int = 2 * 1024 * 1024

    def under(self, prefix: str) -> str:
        """The topic's full name on the cluster."""
        return f"{prefix}.{self.name}"


EVENTS = Topic("events", "what was remembered, revised or forgotten")
CLASSIFIED = Topic("classified", "the same, with what it is about")
ENRICHED = Topic(
    "enriched",
    "the same, with its vectors; compacted, so that replaying it rebuilds the index",
    cleanup="compact",
    # Compaction keeps the last record of a key, which need not be its greatest version: whoever is not
    # further behind than events are kept sees all of them.
    min_compaction_lag_ms=EVENTS.retention_ms,
    max_compaction_lag_ms=2 * EVENTS.retention_ms,
)
STORED = Topic("stored", "which store has done with which event")
ASKED = Topic("search.asked", "questions", retention_ms=HOUR_MS)
OPERATOR_ASKED = Topic(
    "operator.asked",
    "operators' questions: what the stores hold of everybody, and to replace the index",
    retention_ms=HOUR_MS,
)
ANSWERED = Topic(
    "search.answered", "answers, on the partition their asker named", retention_ms=HOUR_MS
)
DEAD = Topic(
    "dead",
    "what could not be used: its bytes, origin and reason",
    retention_ms=30 * DAY_MS,
    # Beyond the largest message there can be: its origin and the reason come on top.
    max_message_bytes=3 * 1024 * 1024,
)
RECALLED = Topic(
    "recalled", "what answers told of, and what was archived, restored or consolidated"
)
TIERED = Topic("tiered", "where each of these memories stands by its use")
MEM0_SEEN = Topic(
    "mem0.seen",
    "each memory of Mem0 as the poller last saw it: its checkpoint, compacted",
    cleanup="compact",
)
MEM0_CYCLES = Topic(
    "mem0.cycles", "the last cycle of the Mem0 poller, compacted", cleanup="compact"
)

TOPICS = (
    EVENTS,
    CLASSIFIED,
    ENRICHED,
    STORED,
    ASKED,
    OPERATOR_ASKED,
    ANSWERED,
    DEAD,
    RECALLED,
    TIERED,
    MEM0_SEEN,
    MEM0_CYCLES,
)
