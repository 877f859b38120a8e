"""memory.stored -> memory.classified: a memory comes once more when its conversation has gone on.

What follows tells as much of a text as what was before it ("the second of June": "then that is when we
fly"), but is not known yet when the text is published. So when the record has stored a memory of a
conversation, the memories beside it are looked at, and those that hear something new go back to the
embedder: the same event, the same content, other texts beside it. The same where one was forgotten.

What is on its way to a memory is not sent again, nor anything else: once the record has it, the memory is
read again by itself. So a burst costs one reading on the way and one after it, not one for each turn.

It ends by itself: a memory that comes once more is no news to the others, it is only read again, in case its
conversation has changed while it was on its way. What the record knows in the end is what every memory has
heard in the end, however many of these stages run, whatever order they work in, and whatever is killed.
Safe to repeat: who has heard all that there is does not come again.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple
from uuid import UUID

from cachetools import TTLCache

from pipeline.domain.identity import memory_key
from pipeline.ports import Changes, MemoryRecords, Reading
from pipeline.stage import Onward, Stage
from schemas.events import STORED as NOTICES
from schemas.events import MemoryClassified, MemoryStored, Stored, UserErased
from schemas.topics import CLASSIFIED, STORED

_REMEMBERED = 100_000
"""Readings on their way, some 30 MB: what is forgotten of them may be sent once more."""
_LONGEST_WAY_S = 600
"""What takes longer may have been set aside: what is said since is not kept waiting for it."""


class Sent(NamedTuple):
    """A reading that Kafka has."""

    event_id: UUID
    version: int
    context: int


def stage(records: MemoryRecords) -> Stage:
    """The contextualizer stage."""
    sent = TTLCache[UUID, Sent](_REMEMBERED, _LONGEST_WAY_S)

    async def listen(notices: Sequence[Stored]) -> Sequence[tuple[MemoryClassified, ...]]:
        changes = changes_in(notices)
        if not changes:
            return [()] * len(notices)
        readings = await records.contexts(changes)
        anew = [
            reading.memory
            for reading in readings
            if (key := _key(reading.memory)) in changes.again
            or not is_on_its_way(sent.get(key), reading)
        ]
        # They are of the whole batch: each once, however many of its neighbours are in it.
        return [*[()] * (len(notices) - 1), tuple(anew)]

    async def remember(
        done: Sequence[tuple[Stored, tuple[MemoryClassified, ...]]],
    ) -> AsyncGenerator[Sequence[Onward]]:
        # Only now: what Kafka has not acknowledged is on no way, and the same batch asks for it again.
        for _, anew in done:
            sent.update(
                {_key(each): Sent(each.event_id, each.version, each.context) for each in anew}
            )
        return
        yield

    return Stage(
        name="contextualizer",
        reads=STORED,
        writes=CLASSIFIED,
        decode=NOTICES.validate_json,
        react=listen,
        follow=remember,
    )


def is_on_its_way(sent: Sent | None, reading: Reading) -> bool:
    """Whether something was sent to the same state of the memory that the record has not seen yet.

    When it has, the memory is read again, whoever sent it: what it lacks then comes then.
    """
    state = reading.memory
    return (
        sent is not None
        and (sent.event_id, sent.version) == (state.event_id, state.version)
        and sent.context > reading.heard
    )


def _key(state: MemoryClassified | MemoryStored) -> UUID:
    return memory_key(state.user_id, state.memory_id)


def changes_in(notices: Sequence[Stored]) -> Changes:
    """What to ask the record about.

    A reading that came too late stands behind something newer in the log, and compaction would keep it
    alone: so does a plain event that is repeated behind a reading of it. So the newest state goes behind it
    once more; where that is a forgetting, by the record writer.
    """
    changes = Changes()
    for notice in notices:
        match notice:
            case UserErased(store="record"):
                changes.users.add(notice.user_id)
            case MemoryStored(store="record"):
                _look_at(changes, _key(notice), notice)
            case _:
                pass
    return changes


def _look_at(changes: Changes, key: UUID, notice: MemoryStored) -> None:
    if notice.outcome == "stored" and notice.held > notice.context:
        changes.again.add(key)
    match notice.outcome:
        case "forgotten" if not notice.context:
            # It may be by this event that the record knows.
            changes.memories.add(key)
        case "stored" if notice.context:
            changes.read.add(key)
        case "stored" if notice.in_conversation:
            changes.memories.add(key)
        case "stored":
            # It may have left one.
            changes.alone.add(key)
        case "superseded" if notice.context:
            changes.again.add(key)
        case "superseded":
            # It may have been forgotten before it came, and others were told of it.
            changes.alone.add(key)
        case _:
            pass
