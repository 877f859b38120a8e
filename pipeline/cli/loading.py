"""Lines -> memory.events -> both stores: the loop of an import.

A batch is parsed, published and acknowledged before the next one is read. What cannot be used is told
and left out.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from pipeline.cli.confirming import Confirming, Tally
from pipeline.cli.lines import MAX_LINE_BYTES, Line, Lines, batch_of
from pipeline.cli.meter import Meter
from pipeline.cli.patience import saying
from pipeline.cli.rows import Conversations, memory_of
from pipeline.errors import Refused, Unusable

if TYPE_CHECKING:
    from producers.client import MemoryClient, NewMemory
    from producers.receipts import AnyReceipt

SILENT = "Kafka does not acknowledge; the import waits for it. Ctrl-C loses nothing."
SILENT_AFTER_S = 5.0


@dataclass
class Count:
    """What became of the rows of this run."""

    accepted: int = 0
    rejected: int = 0
    settled: Tally = field(default_factory=Counter)
    """Of those accepted, in their order: what became of them, as far as all before them are done with."""
    began: float = field(default_factory=monotonic)
    took_s: float = 0.0


@dataclass(frozen=True)
class Batch:
    """How far the file was, after the last line of a batch that was accepted."""

    last: Line
    accepted: int
    rejected: int
    conversations: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Who is told of what."""

    on_sending: Callable[[Sequence[Line], Line], Sequence[int] | None]
    """Some lines, up to the last one that was read, are about to be published: with which versions?"""
    on_settled: Callable[[Batch, Tally], None]
    """All up to here is stored, or was not waited for."""
    on_rejected: Callable[[Line, str], None]
    on_set_aside: Callable[["AnyReceipt", Unusable], None]


async def load(
    client: "MemoryClient",
    lines: Lines,
    *,
    user: str | None,
    overwrite: bool,
    batch_size: int,
    conversations: Conversations,
    count: Count,
    meter: Meter,
    watching: Watching,
    patience_s: float | None,
) -> None:
    """Publishes all lines, and waits until they are stored; with None for `patience_s` it does not.

    Raises Unavailable, with all that `count` counts accepted and nothing lost.
    """

    confirming = Confirming(
        client,
        patience_s=patience_s or 0.0,
        on_progress=meter.stored,
        on_set_aside=watching.on_set_aside,
    )
    count.settled = confirming.settled
    left_out = 0
    async with confirming:
        while (some := await asyncio.to_thread(batch_of, lines, batch_size)) is not None:
            if not some:
                continue
            rows = _memories(some, user, conversations, count, watching, overwrite=overwrite)
            memories = [memory for _, memory in rows]
            versions = watching.on_sending([line for line, _ in rows], some[-1])
            async with saying(SILENT, after_s=SILENT_AFTER_S, spins=False):
                receipts = await client.remember_many(memories, versions=versions)
            count.accepted += len(receipts)
            left_out += len(some) - len(memories)
            meter.accepted(some[-1].number, left_out=left_out)
            batch = Batch(some[-1], count.accepted, count.rejected, conversations.as_kept())
            settled = partial(watching.on_settled, batch, count.settled)
            if patience_s is None:
                settled()
            else:
                await confirming.add(receipts, settled)
        await confirming.rest()
    count.took_s = monotonic() - count.began


def _memories(
    lines: list[Line],
    user: str | None,
    conversations: Conversations,
    count: Count,
    watching: Watching,
    *,
    overwrite: bool,
) -> "list[tuple[Line, NewMemory]]":
    memories: list[tuple[Line, NewMemory]] = []
    for line in lines:
        try:
            if line.content is None or line.content.strip():
                memory = memory_of(_whole(line), user=user, overwrite=overwrite)
                memories.append((line, conversations.follow(memory)))
        except Refused as error:
            count.rejected += 1
            watching.on_rejected(line, str(error))
    return memories


def _whole(line: Line) -> bytes:
    if line.content is None:
        raise Refused(f"longer than {MAX_LINE_BYTES:,} bytes")
    return line.content
