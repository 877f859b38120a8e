"""A record in, its event out, or why nobody uses it.

One answer for all who read the log: what a stage sets aside must not come back by a rebuild, count as lost
in a comparison, be published again by a repair, or tell a subscriber that it is the newest.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from pipeline.domain.clock import version_at
from pipeline.domain.telling import told
from pipeline.domain.versions import check_not_ahead
from pipeline.errors import Unusable
from pipeline.kafka.records import Record, Unread
from schemas.events import (
    ENRICHED,
    Enriched,
    Event,
    Lived,
    MemoryArchived,
    MemoryRecalled,
    MemoryState,
    MemoryTiered,
)

Decoded = TypeVar("Decoded")


def event_of(record: Record, decode: Callable[[bytes], Decoded]) -> Decoded:
    """The event of a record; `decode` raises ValueError for what is none.

    Raises Unusable where it is none, one of a clock that is days ahead, or was not even read.
    """
    if isinstance(record.value, Unread):
        raise Unusable(record.value.why)
    try:
        event = decode(record.value or b"")
    except ValueError as error:
        raise Unusable(told(error)) from error
    for version in _versions(event):
        check_not_ahead(version, record.timestamp)
    return event


def enriched_of(record: Record) -> Enriched | None:
    """What a record of memory.enriched tells; None where the stages set it aside."""
    try:
        return event_of(record, ENRICHED.validate_json)
    except Unusable:
        return None


def _versions(event: object) -> Iterator[int]:
    """All in the event that orders something: by each of them it could win for ever."""
    if isinstance(event, Event):
        yield event.version
    if isinstance(event, MemoryState):
        yield event.context
    if isinstance(event, Lived):
        # It makes the version of the memory's life.
        yield version_at(event.published_at)
    match event:
        case MemoryRecalled():
            yield version_at(event.at)
        case MemoryArchived(of_version=int(version)):
            # All states up to it are archived.
            yield version
        case MemoryTiered():
            yield from (
                abs(each) for each in (event.archived_version, event.archived_precedence) if each
            )
        case _:
            pass
