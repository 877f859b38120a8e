"""Which state of a memory wins: the same decision for every store.

A store reads what it knows of the memories in a batch, asks `settle` what follows, and writes that. The
rules do not depend on the order of arrival, so both stores end with the same states:

- the greatest version wins; equal versions are told apart by their event ids;
- a state published under an idempotency key yields to any other, and to an earlier one of its kind, so
  that repeating a `remember` changes nothing, undoes no revision and brings back nothing forgotten;
- of equal states the one wins that knows more of its conversation: its content is the same, its vectors are
  better;
- when a user is forgotten, what is not newer goes, and what arrives late and is not newer stays out;
- a version from a clock that is days ahead is not used: nobody could revise that memory for days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pipeline.domain.identity import memory_key
from pipeline.errors import Unusable
from schemas.events import Enriched, MemoryEnriched, MemoryEvent, Outcome, UserForgotten

MAX_AHEAD_MS = 24 * 3_600_000
"""How far a version may be ahead of the record that carries it: clocks differ, but not by days."""
_TIE_BITS = 52
"""As many as a double holds exactly: Qdrant compares numbers as doubles."""


@dataclass(frozen=True, order=True, slots=True)
class Stamp:
    """The place of one state among all states of its memory. The greatest wins."""

    precedence: int
    """The version; below zero for a state that yields to any other: of those the first one wins."""
    tie: int

    @property
    def version(self) -> int:
        """Microseconds: when this state was published."""
        return abs(self.precedence)


@dataclass(frozen=True, slots=True)
class Known:
    """What a store holds of one memory."""

    stamp: Stamp
    forgotten: bool = False
    context: int = field(default=0, compare=False)
    """Which reading of its conversation the state is: nothing that stores could differ in."""

    @property
    def place(self) -> tuple[Stamp, int]:
        """Among all that may be written of its memory: the greatest is kept."""
        return self.stamp, self.context


@dataclass(frozen=True, slots=True)
class Settled:
    """What a batch comes to: what to write, one state a memory, and what became of each event."""

    writes: Mapping[UUID, MemoryEvent]
    """By memory key: the winning MemoryEnriched or MemoryForgotten."""
    outcomes: Sequence[Outcome]


def check_not_ahead(version: int, recorded_ms: int) -> None:
    """Raises Unusable where `version` is more than a day ahead of its record's timestamp.

    The record's time and not ours: the same record is judged alike by each stage, today and when it is
    read again. Kafka since 4.0 takes no record that is itself more than an hour ahead of the broker.
    """
    if recorded_ms < 0:
        raise Unusable("The record has no timestamp: publish it with a client that gives it one.")
    ahead_ms = version // 1_000 - recorded_ms
    if ahead_ms > MAX_AHEAD_MS:
        days = round(ahead_ms / MAX_AHEAD_MS)
        raise Unusable(
            f"The version is {days} days ahead of its record, and nobody could revise the memory until "
            "then: set the publisher's clock and publish it again."
        )


def stamp(event: MemoryEvent) -> Stamp:
    """The stamp of the state that `event` brings."""
    yields = isinstance(event, MemoryEnriched) and event.if_absent
    return placed(event.event_id, event.version, yields=yields)


def placed(event_id: UUID, version: int, *, yields: bool) -> Stamp:
    """The stamp of a state; one that `yields` comes before every one that does not."""
    # The low bits: the high ones of a UUIDv7 are its time, the same for many.
    return Stamp(-version if yields else version, event_id.int & (2**_TIE_BITS - 1))


def settle(
    events: Sequence[Enriched],
    known: Mapping[UUID, Known],
    forgotten_users: Mapping[str, int],
) -> Settled:
    """Decides what a batch of memory events comes to, given what the store holds.

    `known` is by memory key, `forgotten_users` the version up to which each user was forgotten.
    UserForgotten must not be among `events`: it is written by itself, in its place.
    """
    now = dict(known)
    writes: dict[UUID, MemoryEvent] = {}
    outcomes: list[Outcome] = []
    for event in events:
        assert not isinstance(event, UserForgotten)
        key = memory_key(event.user_id, event.memory_id)
        mine, current = stamp(event), now.get(key)
        if event.version <= forgotten_users.get(event.user_id, 0):
            outcomes.append("forgotten")
        elif current is not None and mine < current.stamp:
            outcomes.append("forgotten" if current.forgotten else "superseded")
        elif current is not None and mine == current.stamp and _context(event) < current.context:
            # The same event, from before its conversation went on.
            outcomes.append("stored")
        else:
            # An equal stamp is the same event again: writing it twice is writing it once.
            forgotten = not isinstance(event, MemoryEnriched)
            now[key] = Known(mine, forgotten, _context(event))
            writes[key] = event
            outcomes.append("stored")
    return Settled(writes, outcomes)


def _context(event: MemoryEvent) -> int:
    return event.context if isinstance(event, MemoryEnriched) else 0


def erased(version: int) -> Known:
    """What remains of a memory that went with its user, forgotten up to `version`."""
    return Known(Stamp(version, 2**_TIE_BITS - 1), forgotten=True)


def runs(events: Sequence[Enriched]) -> Sequence[Sequence[Enriched]]:
    """Cuts a batch before and after each UserForgotten, keeping the order."""
    cut: list[list[Enriched]] = []
    alone = True
    for event in events:
        now_alone = isinstance(event, UserForgotten)
        if alone or now_alone:
            cut.append([])
        cut[-1].append(event)
        alone = now_alone
    return cut
