"""A batch of events in, the states to write out: what the record and the index decide alike.

`pipeline.domain.versions.settle` says which state wins. One thing it leaves to the stores is said here,
once for all of them: a memory whose event arrives after its user was forgotten leaves a tombstone, just as
if it had arrived in time. Without it a consumer that lost its partition could still write that memory,
and the two stores would differ by whose copy of the forgetting came first.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from pydantic import JsonValue

from pipeline.domain.identity import context_hash, memory_key, tombstone_id
from pipeline.domain.versions import Known, Outcome, Stamp, erased, placed, settle, stamp
from pipeline.errors import Refused
from pipeline.ports import AuditEntry
from schemas.events import Enriched, MemoryEnriched, MemoryForgotten, UserForgotten
from schemas.search import EventRef

MOST_NEIGHBOURS = 1_000
"""That a memory is remembered to have left behind."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """Up to which version a user was forgotten, and by which event."""

    version: int
    event_id: UUID
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Erased:
    """The state of a memory that went with its user."""

    user_id: str
    memory_id: str
    by: Watermark

    @property
    def known(self) -> Known:
        return erased(self.by.version)

    @property
    def told(self) -> MemoryForgotten:
        """The event that tells of it. It settles nothing where the watermark is known."""
        key = memory_key(self.user_id, self.memory_id)
        return MemoryForgotten(
            event_id=tombstone_id(self.by.event_id, key),
            user_id=self.user_id,
            memory_id=self.memory_id,
            version=self.by.version,
            published_at=self.by.published_at,
        )


MemoryChange = MemoryEnriched | MemoryForgotten
State = MemoryChange | Erased
"""What a store keeps of one memory."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a batch comes to: the states to write, by memory key, and what became of each event."""

    writes: Mapping[UUID, State]
    outcomes: Sequence[Outcome]
    forgotten: Mapping[UUID, State]
    """What was forgotten on the way, though a newer state may be written: what is kept beside goes."""
    heard: Mapping[UUID, str]
    """By memory key: the hash of what the vectors of a state that is written have heard beside it."""


def decide(
    events: Sequence[Enriched], known: Mapping[UUID, Known], forgotten: Mapping[str, Watermark]
) -> Decided:
    """Decides what a run of memory events comes to, given what the store holds.

    `known` is by memory key, `forgotten` by user. UserForgotten must not be among `events`.
    """
    now = dict(known)
    writes: dict[UUID, State] = {}
    gone: dict[UUID, State] = {}
    outcomes: list[Outcome] = []
    heard: dict[UUID, str] = {}
    read: set[UUID] = set()
    for event in events:
        assert not isinstance(event, UserForgotten)
        key = memory_key(event.user_id, event.memory_id)
        mark = forgotten.get(event.user_id)
        settled = settle([event], now, {event.user_id: mark.version} if mark else {})
        outcomes.extend(settled.outcomes)
        if settled.writes:
            writes[key] = keeping(event, _told_before(event, writes.get(key), key, read))
            heard[key] = _heard(event)
            now[key] = known_of(event)
        elif mark and event.version <= mark.version and _came_last(event, now.get(key)):
            writes[key] = Erased(event.user_id, event.memory_id, mark)
            now[key] = erased(mark.version)
        if key in writes and now[key].forgotten:
            gone[key] = writes[key]
    return Decided(writes, outcomes, gone, heard)


def _told_before(
    event: MemoryChange, before: State | None, key: UUID, read: set[UUID]
) -> State | None:
    """What of the batch `event` may know more from. `read` are the keys of which it holds readings only.

    What a reading says was said before is what the record made out, or its publisher had told: nobody
    can tell here. What the publisher has told the store knows, and gives it to another state by itself.
    """
    if before is None:
        if _is_reading(event):
            read.add(key)
    elif key in read and known_of(before).stamp != stamp(event):
        read.discard(key)
        return None
    return before


def _is_reading(event: MemoryChange) -> bool:
    return isinstance(event, MemoryEnriched) and event.context > 0


def _heard(event: MemoryChange) -> str:
    if isinstance(event, MemoryForgotten):
        return ""
    return context_hash(event.preceding, event.following)


def keeping(state: State, before: State | None) -> State:
    """`state` in the place of `before`: what was said before it stays known where it tells nothing of that.

    Where it is the same event once more, what `before` knows counts, as a text of it may have been forgotten
    since; and of that, what the record still told when it read the conversation.
    """
    if not isinstance(state, MemoryEnriched) or not isinstance(before, MemoryEnriched):
        return state
    if stamp(state) == stamp(before):
        read_later = state.context > before.context
        left = [said for said in before.preceding if not read_later or said in state.preceding]
        return state.model_copy(update={"preceding": tuple(left)})
    if state.preceding or state.run_id != before.run_id:
        return state
    return state.model_copy(update={"preceding": before.preceding})


def gone(changes: Sequence[MemoryChange], outcomes: Sequence[Outcome]) -> Sequence[MemoryEnriched]:
    """The states in a batch that are forgotten: by the same batch, or before they came."""
    forgettings = [change for change in changes if isinstance(change, MemoryForgotten)]
    return [
        change
        for change, outcome in zip(changes, outcomes, strict=True)
        if isinstance(change, MemoryEnriched)
        and (outcome == "forgotten" or any(_forgets(each, change) for each in forgettings))
    ]


def superseded(
    changes: Sequence[MemoryChange], outcomes: Sequence[Outcome]
) -> Sequence[MemoryEnriched]:
    """The states in a batch that came behind newer ones: the trail says whether they were forgotten."""
    return [
        change
        for change, outcome in zip(changes, outcomes, strict=True)
        if isinstance(change, MemoryEnriched) and outcome == "superseded"
    ]


def told_once(changes: Sequence[MemoryChange]) -> Sequence[MemoryChange]:
    """One change of each event: of what is told of it twice the one that wins, of equal ones the last."""
    kept: dict[tuple[UUID, UUID], MemoryChange] = {}
    for change in changes:
        told = memory_key(change.user_id, change.memory_id), change.event_id
        if told not in kept or stamp(kept[told]) <= stamp(change):
            kept[told] = change
    return [*kept.values()]


def _forgets(forgetting: MemoryForgotten, state: MemoryEnriched) -> bool:
    same = (forgetting.user_id, forgetting.memory_id) == (state.user_id, state.memory_id)
    return same and stamp(state) <= stamp(forgetting)


def without(state: MemoryEnriched, texts: Collection[str]) -> MemoryEnriched:
    """The memory as if none of `texts` had been said before it."""
    left = tuple(said for said in state.preceding if said.text not in texts)
    return state if left == state.preceding else state.model_copy(update={"preceding": left})


def _came_last(event: MemoryChange, current: Known | None) -> bool:
    return current is None or current.stamp <= stamp(event)


def known_of(state: State) -> Known:
    """What a store that holds `state` knows."""
    if isinstance(state, Erased):
        return state.known
    if isinstance(state, MemoryForgotten):
        return Known(stamp(state), forgotten=True)
    return Known(stamp(state), context=state.context)


def with_user(change: MemoryForgotten, forgotten: Mapping[str, Watermark]) -> bool:
    """Whether the memory went with its user: what tells of it is no event of its own."""
    mark = forgotten.get(change.user_id)
    if mark is None:
        return False
    return change.event_id == Erased(change.user_id, change.memory_id, mark).told.event_id


def outcome_of(
    event: EventRef,
    held: Known | None,
    mark: Watermark | None,
    *,
    was_read: bool,
) -> Outcome | None:
    """What became of `event`, as of now, in a store that holds `held`; None if it has not read it yet.

    `was_read` says that the store knows to have read it, whatever the stamps tell: a repetition under an
    idempotency key has a version of its own.
    """
    is_marked = mark is not None and event.version <= mark.version
    if event.memory_id is None:
        return "stored" if is_marked else None
    if is_marked:
        return "forgotten"
    if held is None:
        return None
    mine = placed(event.event_id, event.version, yields=event.if_absent)
    if mine == held.stamp:
        return "stored"
    if mine < held.stamp or was_read:
        return "forgotten" if held.forgotten else "superseded"
    return None


def named_user(user_id: str) -> str:
    """Returns `user_id`; raises Refused where it names nobody."""
    if not user_id.strip():
        raise Refused(
            "No user: say whose memories are meant, they are never searched across users."
        )
    return user_id


@dataclass(frozen=True, slots=True)
class Recorded:
    """One state as the audit trail keeps it; without content where that was forgotten."""

    stamp: Stamp
    version: int
    event_id: UUID
    published_at: datetime
    forgotten: bool
    text: str | None
    metadata: Mapping[str, JsonValue]


def history(states: Sequence[Recorded], mark: Watermark | None) -> Sequence[AuditEntry]:
    """The life of one memory, oldest version first; of one version, the state that wins last.

    Events do not say whether they captured or revised: the first state, and the first after a
    forgetting, is the captured one. A user's forgetting counts where there was something to forget.
    """
    told = [_as_told(state, mark) for state in states]
    if mark and any(state.version <= mark.version for state in states):
        by = (mark.version, mark.event_id, mark.published_at)
        told.append(Recorded(erased(mark.version).stamp, *by, True, None, {}))
    entries: list[AuditEntry] = []
    alive = False
    for state in sorted(told, key=lambda state: (state.version, state.stamp)):
        change = "forgotten" if state.forgotten else "revised" if alive else "captured"
        alive = not state.forgotten
        entries.append(
            AuditEntry(
                change,
                state.version,
                state.event_id,
                state.published_at,
                state.text,
                dict(state.metadata),
            )
        )
    return entries


def _as_told(state: Recorded, mark: Watermark | None) -> Recorded:
    """Without its content where that is about to be erased with its user."""
    if mark is None or state.version > mark.version:
        return state
    return replace(state, text=None, metadata={})
