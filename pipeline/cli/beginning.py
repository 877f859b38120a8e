"""A process of stages that comes up, as a person in a terminal watches it: a line for each step.

Where nobody watches, its log is all there is, in the form that machines read.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pipeline.cli.printing import interactive, tell
from pipeline.cli.stack import masked

if TYPE_CHECKING:
    from pipeline.app import Addresses
    from pipeline.settings import Settings

Flow = tuple[str, str, Sequence[str]]
"""A stage, what it reads, and what it writes."""


def is_watched(settings: "Settings") -> bool:
    """Whether somebody reads along, and no program does."""
    return interactive() and settings.log_format == "text"


def step_told(settings: "Settings", where: "Addresses") -> Callable[[str], None]:
    """Tells each step of `app.run` that takes time or may not succeed."""

    def on_step(step: str) -> None:
        if words := in_words(step, settings, where):
            tell(words, style="dim")

    return on_step


def in_words(step: str, settings: "Settings", where: "Addresses") -> str:
    """What a step is to a person; empty where there is nothing to see."""
    prefix, servers = settings.topic_prefix, where.kafka.bootstrap_servers
    index = where.qdrant_url or f"Qdrant Edge in {where.qdrant_path}"
    reranker = settings.reranker_model
    told = {
        "topics": f"Connecting to Kafka at {servers}, and making what is missing of the topics {prefix}.*",
        "embedder": f"Loading the model {settings.embedding_model}; the first time it is measured, "
        "which takes a minute",
        "rereading": f"Loading the reranker {reranker}" if reranker else "",
        "records": f"Opening the record, {masked(where.postgres_dsn or '')}",
        "vectors": f"Opening the index, {masked(index)}",
        "caches": f"Opening the cache, {masked(where.redis_url)}" if where.redis_url else "",
        "joining": "Joining the other processes of the same stages",
    }
    return told.get(step, "")


def tell_ready(flows: Iterable[Flow]) -> None:
    """What each stage reads and writes, now that it does."""
    for stage, reads, writes in flows:
        told = f"reads {reads}, writes {', '.join(writes)}" if writes else f"reads {reads}"
        tell(f"{stage:<14}    ready      {told}", style="green")
    tell("Ctrl-C stops it: what is in flight is finished first.", style="dim")
