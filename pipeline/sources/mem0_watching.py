"""One cycle: reads what may have changed in Mem0, decides, and has it kept; never guesses.

    rows updated since -> changes        every cycle
    how many are there -> a sweep        where the number is not what is known, and now and then
    not listed -> asked for by its id -> deleted

Changes are kept as they are found, a few hundred at a time. What it cannot know it leaves as it is.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

import structlog

from pipeline.errors import Halted
from pipeline.sources.mem0 import (
    Change,
    Mem0Reads,
    Missing,
    Observed,
    Page,
    Rules,
    believed_gone,
    changed,
    deleted,
    dropped_until,
    floor_after,
    is_expendable,
    is_permitted,
    is_unsettled,
    known_until,
    missing_of,
    newest_of,
    permission_for,
    sweep_is_due,
)
from schemas.mem0 import Mem0CycleEnded, Mem0Seen

log = structlog.get_logger(__name__)

WALKS = 3
"""How often pages are read again that moved while they were read."""
PROBES = 20
"""Of many that are missing, how many are asked for one by one."""

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Book(Protocol):
    """What was seen before."""

    seen: dict[str, Mem0Seen]
    """By memory id."""
    last: Mem0CycleEnded | None

    async def keep(self, changes: Sequence[Change], ended: Mem0CycleEnded | None = None) -> None:
        """Publishes the events and what is now known, all or nothing. Raises Unavailable, Refused."""
        ...

    async def drop(self, memory_ids: Sequence[str]) -> None:
        """Forgets what nobody will ask for any more."""
        ...


@dataclass
class Tally:
    """What a cycle has found, by user; None: nobody's."""

    by_user: dict[str | None, Counter[str]] = field(default_factory=dict[str | None, Counter[str]])

    def add(self, change: Change) -> None:
        """Counts a change; one that is not worth telling counts nothing."""
        if change.kind != "touched":
            self.by_user.setdefault(change.user_id, Counter())[change.kind] += 1

    @property
    def total(self) -> Counter[str]:
        return sum(self.by_user.values(), Counter[str]())


@dataclass
class Walk:
    """What came of reading pages."""

    began: datetime
    took_s: float = 0.0
    count: int = 0
    ids: set[str] = field(default_factory=set[str])
    newest: datetime | None = None
    stable: bool = True
    """Whether it is likely that no row moved from one page to another while they were read."""


class Watching:
    """Cycle after cycle of one project."""

    def __init__(
        self, reads: Mem0Reads, book: Book, rules: Rules, *, clock: Callable[[], datetime]
    ) -> None:
        self._reads, self._book, self._rules, self._clock = reads, book, rules, clock
        self._doubted: set[str] = set()
        """Asked for by their ids in each cycle, until what became of them is certain: too young to be
        believed gone, or of two states nobody knows which is the newer one."""
        self._unexplained = 0
        """By how many Mem0's number differed after the last sweep."""

    async def cycle(self, project_id: str) -> tuple[Mem0CycleEnded, Tally]:
        """Publishes all that has changed. Raises Unavailable, Refused; Halted where a person is asked."""
        began, asked = self._clock(), self._reads.requests
        self._tally, self._changes = Tally(), list[Change]()
        self._project_id, self._began = project_id, began
        last = self._book.last
        self._known_until = last.known_until if last else None
        swept_at = last.swept_at if last else None
        if sweep_is_due(last, began, self._rules):
            walk, swept_at = await self._sweep(), began
        else:
            assert last is not None
            walk = await self._walk(last.floor)
            await self._confirm(self._doubted)
            if await self._number_differs():
                walk, swept_at = await self._sweep(), began
        expendable = self._expendable()
        ended = self._ended(began, walk, swept_at, self._reads.requests - asked, expendable)
        await self._flush(ended)
        if expendable:
            await self._book.drop(list(expendable))
        return ended, self._tally

    # Reading

    async def _walk(self, since: datetime | None) -> Walk:
        walk = Walk(self._clock())
        for _ in range(WALKS):
            walk = await self._walked_once(since)
            if walk.stable:
                break
        return walk

    async def _walked_once(self, since: datetime | None) -> Walk:
        last = self._book.last
        walk = Walk(self._clock(), newest=last.newest if last else None)
        counts: set[int] = set()
        async for asked_at, page in self._pages(since, walk):
            counts.add(page.count)
            walk.count = page.count
            walk.ids |= {row.memory_id for row in page.rows}
            walk.newest = newest_of(page.rows, walk.newest, self._clock())
            await self._take(page.rows, asked_at)
        walk.took_s = max(0.0, (self._clock() - walk.began).total_seconds())
        walk.stable = walk.stable and len(counts) == 1 and len(walk.ids) == walk.count
        return walk

    async def _pages(
        self, since: datetime | None, walk: Walk
    ) -> AsyncGenerator[tuple[datetime, Page]]:
        """All pages, a few at a time. One that is not there says that rows went while they were read."""
        size, number, last = self._rules.page_size, 1, 1
        while number <= last:
            numbers = range(number, min(last, number + self._rules.at_once - 1) + 1)
            pages = await self._each(numbers, lambda n: self._reads.page(n, size=size, since=since))
            for asked_at, page in pages:
                if page is None:
                    walk.stable = False
                    return
                yield asked_at, page
                last = max(last, number + 1 if page.more else number, -(-page.count // size))
                number += 1

    async def _number_differs(self) -> bool:
        """Whether Mem0 holds more or fewer memories than are known, and a sweep might tell why."""
        difference = await self._reads.count() - len(self._live())
        return difference not in (0, self._unexplained)

    def _live(self) -> Mapping[str, Mem0Seen]:
        return {memory_id: s for memory_id, s in self._book.seen.items() if not s.forgotten}

    async def _each(
        self, asked: Iterable[Asked], ask: Callable[[Asked], Awaitable[Answered]]
    ) -> list[tuple[datetime, Answered]]:
        """A few requests at a time, each with when it was sent; the first that fails ends the others."""
        gate = asyncio.Semaphore(self._rules.at_once)

        async def one(each: Asked) -> tuple[datetime, Answered]:
            async with gate:
                return self._clock(), await ask(each)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(each)) for each in asked]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    # Deciding

    async def _take(self, rows: Sequence[Observed], asked_at: datetime) -> None:
        for row in rows:
            self._doubted.discard(row.memory_id)
            seen = self._book.seen.get(row.memory_id)
            if seen and is_unsettled(seen, row, asked_at, self._rules):
                self._doubted.add(row.memory_id)
            change = changed(
                seen,
                row,
                project_id=self._project_id,
                asked_at=asked_at,
                now=self._clock(),
                rules=self._rules,
                dropped_until=dropped_until(self._book.last),
            )
            if change is not None:
                await self._note(change)

    async def _note(self, change: Change) -> None:
        self._tally.add(change)
        self._changes.append(change)
        # What is decided next is decided knowing this; the book is read anew where keeping it fails.
        self._book.seen[change.seen.memory_id] = change.seen
        if len(self._changes) >= self._rules.batch:
            await self._flush()

    async def _flush(self, ended: Mem0CycleEnded | None = None) -> None:
        changes, self._changes = self._changes, []
        if changes or ended:
            await self._book.keep(changes, ended)

    # What is missing

    async def _sweep(self) -> Walk:
        """Lists everything, and asks for each that is not listed."""
        known = self._live()
        walk = await self._walk(None)
        missing = [memory_id for memory_id in known if memory_id not in walk.ids]
        gone = missing_of(missing, known, self._book.last)
        if gone.is_mass and not self._is_permitted(gone):
            await self._ask_a_person(missing, gone)
            self._known_until = known_until(self._book.last)
        else:
            self._known_until = None
            await self._confirm(missing)
        self._unexplained = walk.count - len(self._live())
        return walk

    async def _confirm(self, missing: Iterable[str]) -> None:
        """Deletes what Mem0 says is not there, and leaves the rest."""
        live = self._live()
        there = sorted(memory_id for memory_id in missing if memory_id in live)
        for start in range(0, len(there), self._rules.batch):
            batch = there[start : start + self._rules.batch]
            answers = await self._each(batch, self._reads.find)
            for memory_id, (asked_at, row) in zip(batch, answers, strict=True):
                if row is not None:
                    await self._take([row], asked_at)
                elif await self._is_gone(self._book.seen[memory_id], asked_at):
                    self._doubted.discard(memory_id)
                    await self._note(deleted(self._book.seen[memory_id], self._clock()))
                else:
                    self._doubted.add(memory_id)

    async def _is_gone(self, seen: Mem0Seen, asked_at: datetime) -> bool:
        if believed_gone(seen, asked_at, self._rules):
            return True
        return await self._reads.tells_deletion(seen.memory_id)

    def _is_permitted(self, gone: Missing) -> bool:
        return is_permitted(self._rules.permission, self._project_id, self._book.last, gone)

    async def _ask_a_person(self, missing: Sequence[str], gone: Missing) -> None:
        """Raises Halted, unless Mem0 has some of them after all: then its listing is what is wrong."""
        probed = sorted(missing)[:: max(1, len(missing) // PROBES)][:PROBES]
        found = await self._each(probed, self._reads.find)
        if any(row is not None for _, row in found):
            log.warning(
                "Mem0 does not list all of its memories; nothing is deleted",
                missing=gone.missing,
                known=gone.told_of,
            )
            return
        asked = self._asked()
        await self._flush(asked)
        permission = permission_for(self._project_id, asked, gone.missing)
        with_it = f"MEM0_ALLOW_DELETES={permission} hybrid-memory"
        raise Halted(
            f"{gone.missing:,} of {gone.told_of:,} memories have disappeared from Mem0 at once. None of them "
            "was forgotten here. If they were deleted on purpose, start the poller again with "
            f"MEM0_ALLOW_DELETES={permission}, which lets these go and no others: `{with_it} run mem0` "
            f"where it runs alone, `hybrid-memory down` and then `{with_it} up --detach`, with the options it "
            "had, where it runs in a stack. If not, see whether MEM0_API_KEY and MEM0_HOST are right."
        )

    def _asked(self) -> Mem0CycleEnded:
        """The last cycle that ended, and that a person was asked after it: so it is asked again at each start.

        Its name stays, and with it that of the permission.
        """
        last = self._book.last
        if last is not None:
            until = known_until(last)
            return last.model_copy(update={"known_until": until, "asked": True, "swept_at": None})
        live = self._live()
        return Mem0CycleEnded(
            project_id=self._project_id,
            cycle=0,
            started_at=self._began,
            took_s=0.0,
            requests=0,
            users=len(users_of(live)),
            memories=len(live),
            known_until=self._began,
            asked=True,
        )

    # Ending

    def _ended(
        self,
        began: datetime,
        walk: Walk,
        swept_at: datetime | None,
        requests: int,
        expendable: Mapping[str, Mem0Seen],
    ) -> Mem0CycleEnded:
        last, live, total = self._book.last, self._live(), self._tally.total
        same = last is not None and last.newest == walk.newest
        return Mem0CycleEnded(
            project_id=self._project_id,
            cycle=last.cycle + 1 if last else 1,
            started_at=began,
            took_s=max(0.0, (self._clock() - began).total_seconds()),
            requests=requests,
            users=len({seen.user_id for seen in live.values()} - {None}),
            memories=len(live),
            added=total["added"],
            updated=total["updated"],
            deleted=total["deleted"],
            errors=total["error"],
            swept_at=swept_at,
            newest=walk.newest,
            newest_seen_at=last.newest_seen_at if last and same else self._clock(),
            floor=floor_after(
                last,
                walk.newest,
                walk_began=walk.began,
                walk_took_s=walk.took_s,
                stable=walk.stable,
                rules=self._rules,
            ),
            dropped_until=dropped_until(last, expendable.values()),
            known_until=self._known_until,
        )

    def _expendable(self) -> Mapping[str, Mem0Seen]:
        now, seen = self._clock(), self._book.seen
        return {i: s for i, s in seen.items() if is_expendable(s, now, self._rules)}


def users_of(seen: Mapping[str, Mem0Seen]) -> Counter[str]:
    """How many memories each user has."""
    return Counter(s.user_id for s in seen.values() if s.user_id is not None and not s.forgotten)
