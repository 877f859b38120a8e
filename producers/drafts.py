"""Events as they are published: each newer than all that its client has seen of what it is about."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from pipeline.domain.clock import VersionClock, moment_of
from pipeline.domain.identity import event_id_of
from producers.new_memory import NewMemory, built
from producers.seen import Seen
from schemas.events import MemoryCaptured, MemoryForgotten, MemoryRevised, UserForgotten
from schemas.search import KnownMemory


class Drafts:
    """Writes the events of one client. Raises Refused where one cannot be right."""

    def __init__(self, seen: Seen) -> None:
        self._clock, self._seen = VersionClock(), seen

    def captured(self, memory: NewMemory, version: int | None = None) -> MemoryCaptured:
        """A memory as it is told for the first time; with the `version` that it had then, once more."""
        key = memory.idempotency_key
        event_id = event_id_of(memory.user_id, key, memory.memory_id) if key else uuid4()
        after = self._seen.newest(memory.user_id, memory.memory_id)
        event = self._event(memory.user_id, event_id, after=after, at=version)
        said = memory.model_dump(exclude={"idempotency_key", "memory_id", "occurred_at", "user_id"})
        return MemoryCaptured(
            **event,
            **said,
            memory_id=memory.memory_id or str(event_id),
            occurred_at=memory.occurred_at or event["published_at"],
            if_absent=key is not None,
        )

    def revised(
        self,
        said: NewMemory,
        known: KnownMemory | MemoryCaptured | MemoryRevised,
        *,
        metadata: Mapping[str, Any] | None,
    ) -> MemoryRevised:
        """The memory `known` with another text; what is None stays as it was."""
        return built(
            MemoryRevised,
            # A clock that is behind must not make the revision older than what it revises.
            **self._event(said.user_id, uuid4(), after=known.version),
            memory_id=said.memory_id,
            text=said.text,
            occurred_at=said.occurred_at or known.occurred_at,
            speaker=known.speaker,
            agent_id=known.agent_id,
            app_id=known.app_id,
            run_id=known.run_id,
            metadata=known.metadata if metadata is None else metadata,
        )

    def forgotten(self, user_id: str, memory_id: str) -> MemoryForgotten:
        """The end of one memory."""
        after = self._seen.newest(user_id, memory_id)
        fields = self._event(user_id, uuid4(), after=after)
        return built(MemoryForgotten, **fields, memory_id=memory_id)

    def user_forgotten(self, user_id: str, *, after: int, partitions: int) -> list[UserForgotten]:
        """The end of all of a user's, newer than `after`: a copy for each partition."""
        newest = max(after, self._seen.newest_of_user(user_id))
        fields = self._event(user_id, uuid4(), after=newest)
        return [
            built(UserForgotten, **fields, partition=partition, partitions=partitions)
            for partition in range(partitions)
        ]

    def _event(
        self, user_id: str, event_id: UUID, *, after: int, at: int | None = None
    ) -> dict[str, Any]:
        now = self._clock.next() if at is None else at
        # Another's clock may be ahead. What follows on its memory is newer; our own time stays ours.
        version = max(now, after + 1) if at is None else at
        return {
            "event_id": event_id,
            "user_id": user_id,
            "version": version,
            "published_at": moment_of(now),
        }
