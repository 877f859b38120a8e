"""A conversation, turn by turn: what was said just before travels with each turn.

A short answer means little by itself ("the second of June"). Who publishes a conversation knows what came
before, so that no stage has to.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from producers.moments import GivenMoment, moment
from schemas.events import Said

if TYPE_CHECKING:
    from producers.client import MemoryClient
    from producers.receipts import Receipt

BEFORE = 2
"""Turns that travel with the next one."""


class Conversation:
    """The turns of one run of one user, in the order in which they are remembered."""

    def __init__(
        self,
        memory: "MemoryClient",
        *,
        user_id: str,
        run_id: str,
        agent_id: str | None = None,
        app_id: str | None = None,
    ) -> None:
        self.run_id = run_id
        self._memory = memory
        self._whose: dict[str, Any] = {
            "user_id": user_id,
            "run_id": run_id,
            "agent_id": agent_id,
            "app_id": app_id,
        }
        self._said: deque[Said] = deque(maxlen=BEFORE)
        self._one_at_a_time = asyncio.Lock()

    async def remember(
        self,
        text: str,
        *,
        speaker: str | None = None,
        occurred_at: GivenMoment | None = None,
        memory_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> "Receipt":
        """Remembers the next turn. Raises as `MemoryClient.remember` does; what failed was not said."""
        at: Any = moment(occurred_at or datetime.now(UTC))
        async with self._one_at_a_time:
            receipt = await self._memory.remember(
                text,
                **self._whose,
                speaker=speaker,
                occurred_at=at,
                memory_id=memory_id,
                metadata=metadata,
                preceding=tuple(self._said),
                idempotency_key=idempotency_key,
            )
            self._said.append(Said(text=text, speaker=speaker, occurred_at=at))
            return receipt
