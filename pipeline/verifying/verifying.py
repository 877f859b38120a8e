"""Compares the record with the index while both are written to.

What one writer has done and the other has not yet is no difference. So a key that differs is looked at
again once both writers have read all that the log held when it was found. Differs it still, and neither
side has changed meanwhile, then nothing on its way can explain it. If a side has changed, something
newer came by: once more.

Where memories stand by their use is compared beside their states: it is another stage that tells the index,
from another topic, and who has no such stage behind must still be told of states.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from pipeline.ports import Fingerprint, Fingerprints
from pipeline.verifying.comparing import (
    KINDS,
    Difference,
    Kind,
    differences,
    tier_differences,
    windows,
)

CHUNK = 1_000
"""Keys looked at again at once; as many differences are in memory at a time."""
ROUNDS = 10
"""How often a key that keeps changing is looked at."""


class Readers(Protocol):
    """Those who write the stores from the log."""

    async def caught_up(self) -> bool:
        """Waits until they have read what the log holds now; False where they do not get on."""
        ...


@dataclass(frozen=True)
class InTurn:
    """Readers of which one writes what the next one reads."""

    readers: Sequence[Readers]

    async def caught_up(self) -> bool:
        for each in self.readers:
            if not await each.caught_up():
                return False
        return True


class Progress(Protocol):
    """Where a pass is: its share of the way, and how many it has seen."""

    def __call__(self, fraction: float, seen: int) -> None: ...


Tell = Callable[[Sequence[Fingerprint], Sequence[Fingerprint]], Sequence[Difference]]
"""What two stores' fingerprints differ in."""
Taker = Callable[[Sequence[Difference]], Awaitable[None]]
"""What else to do with differences, a chunk at a time."""


@dataclass
class Report:
    """What was found. `told` holds the first differences only."""

    keep: int
    compared: int = 0
    """Keys of both stores together."""
    logged: int = 0
    """Records of the log that the record was asked about."""
    counts: Counter[Kind] = field(default_factory=Counter[Kind])
    in_flight: int = 0
    """Keys that differ while a writer is behind, or that kept changing: nothing is known of them."""
    unread: Mapping[str, int] = field(default_factory=dict[str, int])
    """Events accepted that are not in the log yet, by the stage before which they wait in vain."""
    told: list[Difference] = field(default_factory=list[Difference])

    def add(self, found: Sequence[Difference]) -> None:
        """Counts differences, and keeps the first of them."""
        self.counts.update(each.kind for each in found)
        self.told += found[: max(0, self.keep - len(self.told))]

    @property
    def differences(self) -> int:
        return self.counts.total()

    @property
    def equal(self) -> bool:
        """Whether everything was compared, and nothing differs."""
        return not self.differences and not self.undecided

    @property
    def undecided(self) -> bool:
        """Whether a stage is behind and does not get on, so that nobody can tell all."""
        return bool(self.in_flight or self.unread)

    def by_kind(self) -> dict[Kind, int]:
        """The kinds that there are, in a fixed order."""
        return {kind: self.counts[kind] for kind in KINDS if self.counts[kind]}


async def compare(
    record: Fingerprints,
    index: Fingerprints,
    readers: Readers,
    report: Report,
    *,
    take: Taker,
    on_progress: Progress,
    tiers: Readers | None = None,
) -> None:
    """Compares all that both stores hold, and gives each chunk of differences to `take`.

    `tiers` are those who write where memories stand; without them that is not compared.
    """
    passes = [_Pass(differences, readers)]
    passes += [_Pass(tier_differences, tiers)] if tiers is not None else []

    async def settle(least: int) -> None:
        for each in passes:
            while len(each.differing) >= least:
                chunk = each.differing[:CHUNK]
                del each.differing[:CHUNK]
                found, open_ = await settled(chunk, record, index, each.readers, each.tell)
                report.add(found)
                report.in_flight += len(open_)
                if found:
                    await take(found)

    async with aclosing(windows(record, index)) as all_:
        async for window in all_:
            for each in passes:
                each.differing += each.tell(window.record, window.index)
            keys = {each.key for each in window.record} | {each.key for each in window.index}
            report.compared += len(keys)
            # Keys are hashes, evenly spread: the last one tells how far we are.
            on_progress(window.last.int / 2**128, report.compared)
            await settle(CHUNK)
    await settle(1)
    on_progress(1.0, report.compared)


@dataclass
class _Pass:
    """What is compared, who writes it, and what is to be looked at again."""

    tell: Tell
    readers: Readers
    differing: list[Difference] = field(default_factory=list[Difference])


async def settled(
    differing: Sequence[Difference],
    record: Fingerprints,
    index: Fingerprints,
    readers: Readers,
    tell: Tell = differences,
) -> tuple[Sequence[Difference], Sequence[Difference]]:
    """The differences that nothing in flight explains, and those that nobody can tell of."""
    found: list[Difference] = []
    before = {each.key: each for each in differing}
    for _ in range(ROUNDS):
        if not before or not await readers.caught_up():
            break
        now = await look(list(before), record, index, tell)
        found += [each for each in now if each == before[each.key]]
        before = {each.key: each for each in now if each != before[each.key]}
    return found, list(before.values())


async def look(
    keys: Sequence[UUID], record: Fingerprints, index: Fingerprints, tell: Tell = differences
) -> Sequence[Difference]:
    """Where the two differ in these keys."""
    return tell(await record.fingerprints_of(keys), await index.fingerprints_of(keys))


async def nothing_more(_: Sequence[object]) -> None:
    """For a `compare` that only counts."""
