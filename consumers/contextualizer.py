"""memory.stored -> memory.classified: a memory comes once more when its conversation has gone on.

What follows tells as much of a text as what was before it ("the second of June": "then that is when we
fly"), but is not known yet when the text is published. So when the record has stored a memory of a
conversation, the memories beside it are looked at, and those that hear something new go back to the
embedder: the same event, the same content, other texts beside it. The same where one was forgotten.

It ends by itself: a memory that comes once more is no news to the others, it is only read again, in case its
conversation has changed while it was on its way. What the record knows in the end is what every memory has
heard in the end, however many of these stages run, whatever order they work in, and whatever is killed.
Safe to repeat: who has heard all that there is does not come again.
"""

from collections.abc import Sequence
from uuid import UUID

from pipeline.domain.identity import memory_key
from pipeline.ports import Changes, MemoryRecords
from pipeline.stage import Stage
from schemas.events import STORED as NOTICES
from schemas.events import MemoryClassified, MemoryStored, Stored, UserErased
from schemas.topics import CLASSIFIED, STORED


def stage(records: MemoryRecords) -> Stage:
    """The contextualizer stage."""

    async def listen(notices: Sequence[Stored]) -> Sequence[tuple[MemoryClassified, ...]]:
        changes = changes_in(notices)
        if not changes:
            return [()] * len(notices)
        anew = await records.contexts(changes)
        # They are of the whole batch: each once, however many of its neighbours are in it.
        return [*[()] * (len(notices) - 1), tuple(anew)]

    return Stage(
        name="contextualizer",
        reads=STORED,
        writes=CLASSIFIED,
        decode=NOTICES.validate_json,
        react=listen,
    )


def changes_in(notices: Sequence[Stored]) -> Changes:
    """What to ask the record about.

    A reading that came too late stands behind something newer in the log, and compaction would keep it
    alone. So the newest state goes behind it once more; where that is a forgetting, by the record writer.
    """
    changes = Changes()
    for notice in notices:
        match notice:
            case UserErased(store="record"):
                changes.users.add(notice.user_id)
            case MemoryStored(store="record"):
                key = memory_key(notice.user_id, notice.memory_id)
                _look_at(changes, key, notice)
            case _:
                pass
    return changes


def _look_at(changes: Changes, key: UUID, notice: MemoryStored) -> None:
    match notice.outcome:
        case "forgotten" if not notice.context:
            # It may be by this event that the record knows.
            changes.memories.add(key)
        case "stored" if notice.context:
            changes.read.add(key)
        case "stored" if notice.in_conversation:
            changes.memories.add(key)
        case "superseded" if notice.context:
            changes.again.add(key)
        case _:
            pass
