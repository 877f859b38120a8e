"""The conversations of the record in memory: who is beside whom, and what each has heard of that.

What a memory's vectors have heard differs from what is said beside it as soon as somebody comes, moves or goes:
then it is to be read once more.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pipeline.domain.identity import context_hash, memory_key
from pipeline.domain.versions import stamp
from pipeline.ports import Changes, Reading
from pipeline.stores.states import MOST_NEIGHBOURS, State, known_of
from schemas.events import MOST_BESIDE, MemoryClassified, MemoryEnriched, Said


@dataclass
class ConversationsInMemory:
    """Over the states of a record, which writes them."""

    states: Mapping[UUID, State]
    heard: dict[UUID, str | None] = field(default_factory=dict[UUID, "str | None"])
    """By memory: the hash of what its vectors have heard."""
    neighbours: dict[UUID, Sequence[UUID]] = field(default_factory=dict[UUID, "Sequence[UUID]"])
    """By memory: those beside whom it was."""
    _reading: int = 0

    def leave_behind(self, key: UUID, *others: UUID) -> None:
        """Each once, the last ones."""
        newest_first = dict.fromkeys(reversed([*self.neighbours.get(key, ()), *others]))
        self.neighbours[key] = [*newest_first][:MOST_NEIGHBOURS][::-1]

    def left_by(self, key: UUID, state: State) -> Sequence[UUID]:
        """Those beside whom the memory was, where `state` is about to take it from that place."""
        before = self.states.get(key)
        if not isinstance(before, MemoryEnriched) or stamp(before) == known_of(state).stamp:
            return ()
        if isinstance(state, MemoryEnriched) and _place(state) == _place(before):
            return ()
        return self._beside(before)

    def understood(self, state: MemoryEnriched) -> MemoryClassified:
        """The state as it would be enriched now, in its conversation."""
        own = set(MemoryClassified.model_fields) - {"type", "hops"}
        told: dict[str, Any] = {name: getattr(state, name) for name in own}
        if self._is_read(state):
            now = time.time_ns() // 1_000
            told["context"] = self._reading = max(now, self._reading + 1, state.context + 1)
            told["following"] = tuple(map(_said, self._after(state)))
            told["preceding"] = state.preceding or tuple(map(_said, self._before(state)))
        return MemoryClassified(**told)

    def contexts(self, changes: Changes) -> Sequence[Reading]:
        """As `MemoryRecords.contexts`."""
        told: list[Reading] = []
        for key in sorted(self._looked_at(changes) & self.states.keys()):
            if isinstance(state := self.states[key], MemoryEnriched):
                now = self.understood(state)
                heard = context_hash(now.preceding, now.following) == self.heard[key]
                if key in changes.again or (self._is_read(state) and not heard):
                    told.append(Reading(now, state.context))
        return told

    def _looked_at(self, changes: Changes) -> set[UUID]:
        left = {
            key
            for key in self.states.keys() & self.neighbours.keys()
            if self.states[key].user_id in changes.users
        }
        looked_at = {*changes.memories, *changes.read, *changes.again}
        for key in changes.memories | changes.alone | left:
            looked_at.update(self.neighbours.get(key, ()))
            if isinstance(state := self.states.get(key), MemoryEnriched):
                looked_at.update(self._beside(state))
        return looked_at

    def _is_read(self, state: MemoryEnriched) -> bool:
        """Whether something is said beside it, or was."""
        heard = self.heard.get(memory_key(state.user_id, state.memory_id))
        was_told = bool(state.preceding) or heard != context_hash((), ())
        return state.run_id is not None or state.context > 0 or was_told

    def _beside(self, state: MemoryEnriched) -> Sequence[UUID]:
        sides = (*self._before(state), *self._after(state))
        return [memory_key(each.user_id, each.memory_id) for each in sides]

    def _before(self, state: MemoryEnriched) -> Sequence[MemoryEnriched]:
        """The last two of the same conversation before it, the nearest last."""
        said = self._conversation(state)
        return [each for each in said if _order(each) < _order(state)][-MOST_BESIDE:]

    def _after(self, state: MemoryEnriched) -> Sequence[MemoryEnriched]:
        """The first two of the same conversation after it, the nearest first."""
        said = self._conversation(state)
        return [each for each in said if _order(each) > _order(state)][:MOST_BESIDE]

    def _conversation(self, state: MemoryEnriched) -> Sequence[MemoryEnriched]:
        if state.run_id is None:
            return ()
        said = [
            each
            for each in self.states.values()
            if isinstance(each, MemoryEnriched)
            and (each.user_id, each.run_id) == (state.user_id, state.run_id)
        ]
        return sorted(said, key=_order)


def _order(state: MemoryEnriched) -> tuple[datetime, int, str]:
    return (state.occurred_at, state.version, state.memory_id)


def _place(state: MemoryEnriched) -> tuple[str | None, datetime]:
    return (state.run_id, state.occurred_at)


def _said(state: MemoryEnriched) -> Said:
    return Said(text=state.text, speaker=state.speaker, occurred_at=state.occurred_at)
