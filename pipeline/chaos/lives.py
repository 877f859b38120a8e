"""What became of recalls: the lives that the record keeps, and where the index says that memories stand. Pure.

A recall may be lost on its way into the log; one that is in the log counts, if the record had its memory by
then. And whatever a life was, both stores must tell the same of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.chaos.finding import Finding, MemoryName, named


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a memory stands by its use, as a store tells it."""

    life: int
    """The version of the life."""
    strength: float
    recalled_at: datetime | None
    medium_until: datetime | None
    long_until: datetime | None
    archived_version: int | None
    consolidated: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recall:
    """One recall that is in the log."""

    name: MemoryName
    hour: int
    """The clock hour in which it was of use, since 1970."""
    told_at_ms: int
    """When it was written into the log."""


@dataclass(frozen=True)
class Use:
    """Everything that was read of lives at the end."""

    in_record: Mapping[MemoryName, Standing] = field(default_factory=dict[MemoryName, Standing])
    in_index: Mapping[MemoryName, Standing] = field(default_factory=dict[MemoryName, Standing])
    hours: Mapping[MemoryName, set[int]] = field(default_factory=dict[MemoryName, set[int]])
    """In which hours the record knows each memory to have been of use."""
    recalls: Iterable[Recall] = ()
    stored_at_ms: Mapping[MemoryName, int] = field(default_factory=dict[MemoryName, int])
    """When the record told for the first time that it has a memory."""


def unlived(use: Use, wanted: Mapping[MemoryName, str | None]) -> Iterable[Finding]:
    """Recalls that count nowhere, and lives that the stores do not agree about.

    `wanted` are the states that memories were to end with, None for what is forgotten.
    """
    yield from _uncounted(use, wanted)
    for name in use.in_record.keys() | use.in_index.keys():
        held, shown = use.in_record.get(name), use.in_index.get(name)
        if wanted.get(name) is None:
            where = "record" if held else "index"
            yield Finding("resurrected", where, f"the life of {named(name)}")
        elif held != shown:
            yield Finding("stale", "index", f"{named(name)} does not stand where the record says")


def _uncounted(use: Use, wanted: Mapping[MemoryName, Any]) -> Iterable[Finding]:
    """What was recalled before the record had it may be missed: the next recall will do."""
    missing = {
        recall.name
        for recall in use.recalls
        if wanted.get(recall.name) is not None
        and use.stored_at_ms.get(recall.name, recall.told_at_ms) < recall.told_at_ms
        and recall.hour not in use.hours.get(recall.name, ())
    }
    for name in sorted(missing):
        yield Finding("lost", "record", f"a recall of {named(name)}")
