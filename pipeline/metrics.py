"""What a process has done and how long it took, as Prometheus reads it: GET /metrics beside /ready."""

from prometheus_client import Counter, Gauge, Histogram

USED = Counter(
    "hybrid_memory_messages_used", "Messages that a stage has done with, as it should.", ["stage"]
)
SET_ASIDE = Counter(
    "hybrid_memory_dead_letters", "Messages that a stage could not use and set aside.", ["stage"]
)
WAITS = Counter(
    "hybrid_memory_waits", "Times that a batch was tried again, a neighbour being down.", ["stage"]
)
BATCH_S = Histogram(
    "hybrid_memory_batch_seconds",
    "From a batch's arrival to its commit.",
    ["stage"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
ANSWERS = Counter("hybrid_memory_answers", "Questions answered, by kind of answer.", ["kind"])
ANSWER_S = Histogram(
    "hybrid_memory_answer_seconds",
    "From a question's arrival to its answer.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CACHE_HITS = Counter(
    "hybrid_memory_cache_hits",
    "Lookups that a tier had: 0 is this process, 2 is Redis.",
    ["kind", "tier"],
)
CACHE_MISSES = Counter(
    "hybrid_memory_cache_misses", "Lookups that a tier did not have.", ["kind", "tier"]
)
CACHE_EVICTIONS = Counter(
    "hybrid_memory_cache_evictions", "Entries that had to go from this process for want of room."
)
CACHE_BYTES = Gauge("hybrid_memory_cache_bytes", "What this process keeps in its tier 0.")
TOLD = Counter(
    "hybrid_memory_told",
    "What follows from answers, by topic: told, or dropped because Kafka was slow.",
    ["topic", "outcome"],
)
MEM0_CYCLES = Counter(
    "hybrid_memory_mem0_cycles", "Cycles of the Mem0 poller, by how they ended.", ["outcome"]
)
MEM0_CHANGES = Counter(
    "hybrid_memory_mem0_changes", "Changes seen in Mem0, by kind; errors among them.", ["kind"]
)
MEM0_LIMITED = Counter(
    "hybrid_memory_mem0_limited", "Times that Mem0 answered 429 or 503: come back later."
)
MEM0_BEHIND_S = Gauge(
    "hybrid_memory_mem0_behind_seconds", "Since the last complete cycle of the Mem0 poller began."
)
MEM0_MEMORIES = Gauge("hybrid_memory_mem0_memories", "Memories that Mem0 holds, as last seen.")
