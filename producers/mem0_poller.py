"""Mem0 -> memory.events: every change that is observed, exactly once.

A cycle reads what may have changed and publishes it together with what was seen, so that a kill at any
point repeats nothing and loses nothing. What happened to a memory between two cycles collapses into one
change. A cycle that fails changes nothing that it has not already published; the next one goes on.

A hint that something changed, as Mem0's webhooks give, brings the next cycle forward. It is not believed:
the cycle reads what every cycle reads. Many hints are one, and however many come, there is a pause of
HINTED_PAUSE_S before the next cycle, and of several times what the last one took.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from pipeline import metrics
from pipeline.ending import unless
from pipeline.errors import Halted, Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.liveness import Liveness
from pipeline.sources import mem0_ledger
from pipeline.sources.mem0 import Mem0Reads, Rules, collection_of, folder_of, is_same_project
from pipeline.sources.mem0_watching import Book, Tally, Watching, users_of
from schemas.mem0 import Mem0CycleEnded

NAME = "mem0"
FEW_USERS = 10
"""So many are told of in every cycle; of more, those of whom something has changed."""
LONGEST_PAUSE_S = 60.0
HINTED_PAUSE_S = 5.0
HINTED_PAUSES = 4.0
"""Hints cannot have more than a fifth of the time spent on Mem0."""
STUCK_S = 3_600.0
TRIED_AGAIN = "the cycle is tried again"
"""What the log says of a failure, with its reason; `status` reads it there."""

log = structlog.get_logger(__name__)


class Opening(Protocol):
    """How to get to Mem0: opened anew after each failure."""

    def __call__(self) -> AbstractAsyncContextManager[Mem0Reads]: ...


class Telling(Protocol):
    """Who is told of each cycle that has ended, with how many memories each user has; `tell` unless given."""

    def __call__(self, ended: Mem0CycleEnded, tally: Tally, users: Counter[str], /) -> None: ...


async def poll(
    opening: Opening,
    connection: KafkaConnection,
    prefix: str,
    *,
    interval_s: float,
    rules: Rules,
    until: asyncio.Event,
    liveness: Liveness | None = None,
    project_id: str | None = None,
    on_ready: Callable[[], None] = lambda: None,
    hinted: asyncio.Event | None = None,
    telling: "Telling | None" = None,
) -> None:
    """Polls until `until` is set, and sooner than after `interval_s` where `hinted` is. The topics must be there.

    Raises Refused where the key is not accepted or is another project's, or another poller has taken over,
    and Halted where so much has disappeared that a person has to say whether it was meant.
    """
    liveness = liveness or Liveness()
    # Between two cycles it sleeps, and Mem0 may ask for an hour's pause: neither is a death.
    liveness.allow(NAME, interval_s + STUCK_S)
    resting = Resting(interval_s, hinted or asyncio.Event())
    # Ended in the middle of a cycle, too: what it has not published, it has not kept.
    await unless(
        until,
        _sessions(
            opening,
            connection,
            prefix,
            resting,
            rules,
            liveness,
            project_id,
            on_ready,
            telling or tell,
        ),
    )


@dataclass(frozen=True)
class Resting:
    """How long it rests between two cycles."""

    interval_s: float
    hinted: asyncio.Event

    async def rest(self, took_s: float) -> None:
        """Until the next cycle is due. A hint that came during the last one may be of what it missed."""
        at_least_s = min(self.interval_s, max(HINTED_PAUSE_S, HINTED_PAUSES * took_s))
        await asyncio.sleep(at_least_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.interval_s - at_least_s):
                await self.hinted.wait()


async def _sessions(
    opening: Opening,
    connection: KafkaConnection,
    prefix: str,
    resting: Resting,
    rules: Rules,
    liveness: Liveness,
    project_id: str | None,
    on_ready: Callable[[], None],
    telling: "Telling",
) -> None:
    """One session after another: each begins from what the one before it has kept."""
    failed = 0
    while True:
        try:
            async with AsyncExitStack() as stack:
                reads = await stack.enter_async_context(opening())
                bound = await reads.project()
                book = await stack.enter_async_context(mem0_ledger.opened(connection, prefix))
                check_project(bound, book, project_id)
                on_ready()
                watching = Watching(reads, book, rules, clock=_now)
                log.info("polling Mem0", project=bound, memories=len(book.seen))
                while True:
                    resting.hinted.clear()
                    took_s = await _cycle(reads, book, watching, bound, liveness, telling)
                    failed = 0
                    await resting.rest(took_s)
        except Unavailable as error:
            failed += 1
            metrics.MEM0_CYCLES.labels("failed").inc()
            liveness.troubles[NAME] = str(error)
            # Capped before it is raised: the thousandth power is no float any more.
            longest_s = min(LONGEST_PAUSE_S, resting.interval_s, 2.0 ** min(failed, 10))
            pause_s = longest_s * random.uniform(0.5, 1)  # noqa: S311
            log.warning(TRIED_AGAIN, reason=str(error), pause_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)


def check_project(bound: str, book: Book, wanted: str | None) -> None:
    """Raises Refused where the key belongs to another project than what was seen before."""
    before = book.last.project_id if book.last else None
    before = before or next((seen.project_id for seen in book.seen.values()), None)
    if wanted is not None and bound != wanted:
        raise Refused(
            f"MEM0_API_KEY belongs to project {bound}, not to MEM0_PROJECT_ID={wanted}. Nothing was changed."
        )
    if before is not None and not is_same_project(before, bound):
        now, then, back = _difference(before, bound)
        raise Refused(
            f"{now}, but what was seen so far is of {then}. Nothing was changed. {back}, or a TOPIC_PREFIX "
            "of its own for this one."
        )


def _difference(before: str, bound: str) -> tuple[str, str, str]:
    """What is read now, what was read before, and how to go back to that."""
    folder, folder_before = folder_of(bound), folder_of(before)
    if folder is not None and folder == folder_before:
        was = collection_of(before)
        now = f"the memories in {folder} are read from its collection {collection_of(bound)}"
        return now, f"the collection {was}", f"Set MEM0_LOCAL_COLLECTION={was}"
    now = f"MEM0_LOCAL is {folder}" if folder else f"MEM0_API_KEY belongs to project {bound}"
    if folder_before:
        return now, f"the folder {folder_before}", f"Set MEM0_LOCAL={folder_before}"
    return now, f"project {before}", "Use a key of that project"


async def _cycle(
    reads: Mem0Reads,
    book: Book,
    watching: Watching,
    bound: str,
    liveness: Liveness,
    telling: "Telling",
) -> float:
    """How many seconds it took."""
    with liveness.polling(NAME):
        if (project := await reads.project()) != bound:
            now, then, back = _difference(bound, project)
            raise Refused(
                f"{now}, but at the start it was {then}. Nothing was changed. {back}, or a TOPIC_PREFIX of "
                "its own for this one."
            )
        try:
            ended, tally = await watching.cycle(bound)
        except Halted:
            metrics.MEM0_CYCLES.labels("halted").inc()
            raise
    liveness.troubles.pop(NAME, None)
    _measure(ended, tally)
    telling(ended, tally, users_of(book.seen))
    return ended.took_s


def _measure(ended: Mem0CycleEnded, tally: Tally) -> None:
    metrics.MEM0_CYCLES.labels("complete").inc()
    for kind, number in tally.total.items():
        metrics.MEM0_CHANGES.labels(kind).inc(number)
    metrics.MEM0_MEMORIES.set(ended.memories)
    began = ended.started_at
    metrics.MEM0_BEHIND_S.set_function(lambda: (_now() - began).total_seconds())


def tell(ended: Mem0CycleEnded, tally: Tally, users: Counter[str]) -> None:
    """One line a user, and a total: in words, with the same numbers beside them for programs."""
    changed = {user for user, found in tally.by_user.items() if any(numbers(found).values())}
    named = changed | users.keys() if len(users) <= FEW_USERS else changed
    for user in sorted(user for user in named if user is not None):
        found = tally.by_user.get(user, Counter[str]())
        line = f"{user}: {in_words(found)}"
        log.info(line, beside={"user": user, **numbers(found)})
    total = tally.total
    line = f"{ended.users:,} {'user' if ended.users == 1 else 'users'}: {in_words(total)}"
    log.info(
        line,
        beside=numbers(total),
        cycle=ended.cycle,
        memories=ended.memories,
        requests=ended.requests,
        took_s=round(ended.took_s, 2),
    )


def in_words(found: Counter[str]) -> str:
    """`9 added, 1 updated, 0 deleted, 0 errors`."""
    errors = "error" if found["error"] == 1 else "errors"
    told: Sequence[tuple[str, str]] = [
        ("added", "added"),
        ("updated", "updated"),
        ("deleted", "deleted"),
        ("error", errors),
    ]
    return ", ".join(f"{found[kind]:,} {word}" for kind, word in told)


def numbers(found: Counter[str]) -> dict[str, int]:
    """The same for programs."""
    return {
        "added": found["added"],
        "updated": found["updated"],
        "deleted": found["deleted"],
        "errors": found["error"],
    }


def _now() -> datetime:
    return datetime.now(UTC)
