"""The record as dicts, for tests of what stands above it: the same rules, the same answers.

It passes the contract suite of its port. Nothing here outlives the process.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from uuid import UUID

from pipeline.domain.identity import content_hash, memory_key, user_key
from pipeline.domain.tiers import Tiers
from pipeline.domain.versions import Known, Outcome, Stamp, runs, stamp
from pipeline.ports import AuditEntry, Believed, Belonging, Changes, Fingerprint, Reading, TooMuch
from pipeline.stores.conversations_in_memory import ConversationsInMemory
from pipeline.stores.lives import KeptLife, decide_lives, inherited, of_state, standing_of
from pipeline.stores.states import (
    Erased,
    MemoryChange,
    Recorded,
    State,
    Watermark,
    decide,
    gone,
    history,
    keeping,
    known_of,
    named_user,
    outcome_of,
    superseded,
    with_user,
    without,
)
from schemas.events import (
    Enriched,
    Lived,
    MemoryCaptured,
    MemoryEnriched,
    MemoryForgotten,
    MemoryTiered,
    Published,
    UserForgotten,
)
from schemas.search import EventRef, RecordedMemory

_NOT_IN_THE_TRAIL = {"type", "hops", "preceding", "following", "context"}
_BELONGING = {each.name for each in fields(Belonging)} - {"precedence", "told"}


@dataclass
class RecordsInMemory:
    """MemoryRecords in dicts."""

    _states: dict[UUID, State] = field(default_factory=dict[UUID, State])
    _marks: dict[str, Watermark] = field(default_factory=dict[str, Watermark])
    _audit: dict[UUID, dict[UUID, MemoryChange]] = field(
        default_factory=dict[UUID, dict[UUID, MemoryChange]]
    )
    _lives: dict[UUID, KeptLife] = field(default_factory=dict[UUID, KeptLife])
    _conversations: ConversationsInMemory = field(init=False)

    def __post_init__(self) -> None:
        self._conversations = ConversationsInMemory(self._states)

    async def write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for run in runs(changes):
            match run[0]:
                case UserForgotten() as forgetting:
                    outcomes.append(self._forget_user(forgetting))
                case _:
                    outcomes.extend(self._write_memories(run))
        return outcomes

    def _write_memories(self, run: Sequence[Enriched]) -> Sequence[Outcome]:
        known = {key: known_of(state) for key, state in self._states.items()}
        decided = decide(run, known, self._marks)
        said = self._conversations
        left = {key: said.left_by(key, state) for key, state in decided.writes.items()}
        for key, state in decided.writes.items():
            self._states[key] = keeping(state, self._states.get(key))
            said.heard[key] = decided.heard.get(key)
            said.leave_behind(key, *left[key])
        self._erase_lives(decided.forgotten.keys())
        changes = [event for event in run if not isinstance(event, UserForgotten)]
        before = [*self._gone_states(changes)]
        for event in changes:
            if not (isinstance(event, MemoryForgotten) and with_user(event, self._marks)):
                self._keep_trail(event)
        late = [
            state for state in superseded(changes, decided.outcomes) if self._was_forgotten(state)
        ]
        self._forget_preceding([*gone(changes, decided.outcomes), *before, *late])
        return decided.outcomes

    def _keep_trail(self, event: MemoryChange) -> None:
        """Of what is told of one event the state that wins, as the memory has it."""
        trail = self._audit.setdefault(memory_key(event.user_id, event.memory_id), {})
        kept = trail.get(event.event_id)
        if kept is None or stamp(kept) <= stamp(event):
            trail[event.event_id] = event

    def _was_forgotten(self, state: MemoryEnriched) -> bool:
        audit = self._audit.get(memory_key(state.user_id, state.memory_id), {}).values()
        return any(
            isinstance(each, MemoryForgotten) and stamp(state) <= stamp(each) for each in audit
        )

    def _gone_states(self, changes: Sequence[MemoryChange]) -> Iterator[MemoryEnriched]:
        """The states of the memories that `changes` forget, up to their forgetting."""
        for change in changes:
            if isinstance(change, MemoryForgotten) and not with_user(change, self._marks):
                for state in self._told_in(memory_key(change.user_id, change.memory_id)):
                    if stamp(state) <= stamp(change):
                        yield state

    def _told_in(self, key: UUID) -> Iterator[MemoryEnriched]:
        """The states of a memory whose texts its trail has not lost."""
        audit = self._audit.get(key, {}).values()
        for state in audit:
            if isinstance(state, MemoryEnriched):
                mark = self._marks.get(state.user_id)
                if _recorded(state, audit, mark).text is not None:
                    yield state

    def _texts_until(self, version: int, key: UUID) -> set[str]:
        return {state.text for state in self._told_in(key) if state.version <= version}

    def _forget_preceding(self, forgotten: Iterable[MemoryEnriched]) -> None:
        """Those who have heard a forgotten text are to be looked at with its memory."""
        texts: dict[str, dict[str, set[UUID]]] = defaultdict(dict)
        for state in forgotten:
            whose = texts[state.user_id].setdefault(state.text, set())
            whose.add(memory_key(state.user_id, state.memory_id))
        for key, state in self._living().items() if texts else ():
            gone = texts.get(state.user_id, {})
            for each in {each for said in state.preceding for each in gone.get(said.text, ())}:
                self._conversations.leave_behind(each, key)
            self._states[key] = without(state, gone.keys())

    def _forget_user(self, forgetting: UserForgotten) -> Outcome:
        user_id, version = forgetting.user_id, forgetting.version
        before = self._marks.get(user_id)
        if before and before.version > version:
            return "superseded"
        mine = [key for key, state in self._states.items() if state.user_id == user_id]
        gone = {key: self._texts_until(version, key) for key in mine}
        mark = Watermark(version, forgetting.event_id, forgetting.published_at)
        self._marks[user_id] = mark
        if before and before.version == version:
            # Another copy of it: all up to its version is gone already.
            return "stored"
        for key, state in self._states.items():
            if state.user_id != user_id:
                continue
            if known_of(state).stamp.version <= version:
                self._states[key] = Erased(user_id, state.memory_id, mark)
                self._conversations.neighbours.pop(key, None)
            elif isinstance(state, MemoryEnriched):
                # Who was there before may have been told it then, whatever has become of it since.
                told = state.model_copy(update={"preceding": ()}) if gone[key] else state
                self._states[key] = without(told, set[str]().union(*gone.values()))
                self._conversations.leave_behind(key, key)
        self._erase_lives(self._lives.keys() - self._living().keys())
        return "stored"

    def _living(self) -> dict[UUID, MemoryEnriched]:
        states = self._states.items()
        return {key: state for key, state in states if isinstance(state, MemoryEnriched)}

    def _erase_lives(self, keys: Iterable[UUID]) -> None:
        """What was forgotten takes its life along, and nobody stands for it any more."""
        gone = [self._lives.pop(key) for key in list(keys) if key in self._lives]
        into = [each for each in gone if each.told.into]
        self._lives.update(inherited(into, self._lives))

    async def live(self, events: Sequence[Lived], tiers: Tiers) -> Sequence[MemoryTiered | None]:
        living = {key: stamp(state).precedence for key, state in self._living().items()}
        decided = decide_lives(events, self._lives, living, tiers)
        self._lives.update(decided.writes)
        return decided.told

    async def lives(self, after: UUID | None, limit: int) -> Sequence[tuple[UUID, MemoryTiered]]:
        living = self._living()
        told = [
            (key, of_state(self._lives[key].told, stamp(living[key]).precedence))
            for key in sorted(self._lives)
            if not after or key > after
        ]
        return told[:limit]

    async def remembered_anew(self, after: UUID | None, limit: int) -> Sequence[MemoryForgotten]:
        keys = [key for key in sorted(self._living()) if not after or key > after]
        trails = [self._audit[key].values() for key in keys]
        gone = [[each for each in trail if isinstance(each, MemoryForgotten)] for trail in trails]
        return [max(some, key=stamp) for some in gone if some][:limit]

    async def belongings(
        self, user_id: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[Belonging]:
        found = [
            Belonging(
                **{name: getattr(state, name) for name in _BELONGING},
                precedence=stamp(state).precedence,
                told=self._lives[key].told if key in self._lives else None,
            )
            for key, state in self._living().items()
            if user_id in {None, state.user_id}
        ]
        found = [each for each in found if (each.user_id, each.memory_id) > (after or ("", ""))]
        return sorted(found, key=lambda each: (each.user_id, each.memory_id))[:limit]

    async def get(self, user_id: str, memory_id: str) -> RecordedMemory | None:
        state = self._states.get(memory_key(named_user(user_id), memory_id))
        if not isinstance(state, MemoryEnriched):
            return None
        kept = self._lives.get(memory_key(user_id, memory_id))
        told = kept.told if kept else None
        return RecordedMemory.model_validate(
            state.model_dump(include=set(RecordedMemory.model_fields))
            | standing_of(told, stamp(state).precedence, datetime.now(UTC))
        )

    async def past(
        self, user_id: str, version: int, *, limit: int, among: int, most_bytes: int
    ) -> Sequence[Believed] | TooMuch:
        named_user(user_id)
        newer = [
            state
            for state in self._living().values()
            if state.user_id == user_id and state.version > version
        ]
        if len(newer) > among:
            return "written"
        told = [
            believed
            for state in sorted(newer, key=lambda state: state.memory_id)
            if (believed := await self.state_at(user_id, state.memory_id, version))
        ][:limit]
        return "said" if sum(_bytes(each.state) for each in told) > most_bytes else told

    async def state_at(self, user_id: str, memory_id: str, version: int) -> Believed | None:
        key = memory_key(named_user(user_id), memory_id)
        newest, state = self._living().get(key), self._state_at(key, version)
        if newest is None or state is None or newest.version <= version:
            return None
        kept = self._lives.get(key)
        return Believed(state, stamp(newest).precedence, kept.told if kept else None)

    def _state_at(self, key: UUID, version: int) -> MemoryCaptured | None:
        audit = self._audit.get(key, {}).values()
        until = [event for event in audit if event.version <= version]
        state = max(until, key=stamp, default=None)
        if not isinstance(state, MemoryEnriched):
            return None
        mark = self._marks.get(state.user_id)
        if _recorded(state, audit, mark).text is None:
            return None
        names = set(MemoryCaptured.model_fields) - _NOT_IN_THE_TRAIL
        return MemoryCaptured(**{name: getattr(state, name) for name in names})

    async def is_forgotten(self, user_id: str, memory_id: str) -> bool:
        state = self._states.get(memory_key(named_user(user_id), memory_id))
        return isinstance(state, MemoryForgotten | Erased)

    async def forgotten_until(self, user_id: str, memory_id: str) -> int:
        mark = self._marks.get(named_user(user_id))
        state = self._states.get(memory_key(user_id, memory_id))
        itself = state.version if isinstance(state, MemoryForgotten) else 0
        return max(itself, mark.version if mark else 0)

    async def outcomes(self, user_id: str, events: Sequence[EventRef]) -> Sequence[Outcome | None]:
        mark = self._marks.get(named_user(user_id))
        return [self._outcome(user_id, event, mark) for event in events]

    def _outcome(self, user_id: str, event: EventRef, mark: Watermark | None) -> Outcome | None:
        key = memory_key(user_id, event.memory_id or "")
        state = self._states.get(key)
        was_read = event.event_id in self._audit.get(key, {})
        return outcome_of(event, known_of(state) if state else None, mark, was_read=was_read)

    async def newest(self, user_id: str) -> int:
        named_user(user_id)
        mine = [state for state in self._states.values() if state.user_id == user_id]
        return max((known_of(state).stamp.version for state in mine), default=0)

    async def history(self, user_id: str, memory_id: str) -> Sequence[AuditEntry]:
        mark = self._marks.get(named_user(user_id))
        audit = self._audit.get(memory_key(user_id, memory_id), {}).values()
        return history([_recorded(event, audit, mark) for event in audit], mark)

    async def count(self, user_id: str | None = None) -> int:
        if user_id is not None:
            named_user(user_id)
        return sum(
            isinstance(state, MemoryEnriched) and user_id in {None, state.user_id}
            for state in self._states.values()
        )

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        return [each for each in self._told() if after is None or each.key > after][:limit]

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        return [each for each in self._told() if each.key in set(keys)]

    def _told(self) -> list[Fingerprint]:
        told = [
            Fingerprint(
                key,
                known_of(state),
                content_hash(state) if isinstance(state, MemoryEnriched) else "",
                life=self._lives[key].told.version if key in self._lives else 0,
            )
            for key, state in self._states.items()
        ]
        for user_id, mark in self._marks.items():
            known = Known(Stamp(mark.version, 0), forgotten=True)
            told.append(Fingerprint(user_key(user_id), known, "", watermark=True, life=0))
        return sorted(told, key=lambda each: each.key)

    async def publishable(self, keys: Sequence[UUID]) -> Sequence[Published]:
        marks = [
            UserForgotten(user_id=user_id, partition=0, partitions=1, **asdict(mark))
            for user_id, mark in self._marks.items()
            if user_key(user_id) in set(keys)
        ]
        return [
            *marks,
            *(self._published(self._states[key]) for key in keys if key in self._states),
        ]

    async def gone_with(
        self, forgetting: UserForgotten, after: str, limit: int
    ) -> Sequence[MemoryForgotten]:
        gone = [
            state.told
            for state in self._states.values()
            if isinstance(state, Erased)
            and (state.user_id, state.by.version) == (forgetting.user_id, forgetting.version)
            and state.memory_id > after
        ]
        return sorted(gone, key=lambda each: each.memory_id)[:limit]

    def _published(self, state: State) -> MemoryCaptured | MemoryForgotten:
        if isinstance(state, Erased):
            return state.told
        if isinstance(state, MemoryForgotten):
            return state.model_copy(update={"hops": {}})
        return self._conversations.understood(state).becomes(MemoryCaptured, {})

    async def contexts(self, changes: Changes) -> Sequence[Reading]:
        return self._conversations.contexts(changes)

    async def readings(self, keys: Sequence[UUID]) -> Mapping[UUID, int]:
        living = self._living()
        return {key: living[key].context for key in keys if key in living and living[key].context}

    async def close(self) -> None:
        pass


def _recorded(
    event: MemoryChange, audit: Collection[MemoryChange], mark: Watermark | None
) -> Recorded:
    gone = (mark is not None and event.version <= mark.version) or any(
        isinstance(other, MemoryForgotten) and stamp(event) <= stamp(other) for other in audit
    )
    text, metadata = (
        (event.text, event.metadata)
        if isinstance(event, MemoryEnriched) and not gone
        else (None, {})
    )
    forgotten = isinstance(event, MemoryForgotten)
    own = (event.event_id, event.published_at, forgotten, text, metadata)
    return Recorded(stamp(event), event.version, *own)


def _bytes(state: MemoryCaptured) -> int:
    metadata = json.dumps(state.metadata, ensure_ascii=False)
    return len(state.text.encode()) + len(metadata.encode())
