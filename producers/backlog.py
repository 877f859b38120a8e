"""memory.events -> the stages: how far they are behind, for a publisher that should not run away from them.

Kafka keeps what the stages have not read yet, on disk and for days; a publisher's own memory is bounded in
any case, for it waits for acknowledgements. This is for those who would rather publish less than be late.
"""

import asyncio
from collections.abc import Mapping
from typing import Literal

from pipeline.errors import PipelineError, Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import GroupState, group_states
from pipeline.kafka.records import group_of
from schemas.topics import CLASSIFIED, ENRICHED, EVENTS, Topic

LOOK_EVERY_S = 1.0

PATH: Mapping[str, Topic] = {
    "classifier": EVENTS,
    "embedder": CLASSIFIED,
    "record_writer": ENRICHED,
    "vector_writer": ENRICHED,
}
"""The stages that an event goes through, and what each reads."""
TO_THE_RECORD = ("classifier", "embedder", "record_writer")


class Backlog:
    """Holds publishers back while the stages are more than `most` events behind."""

    def __init__(
        self,
        connection: KafkaConnection,
        prefix: str,
        *,
        most: int,
        when_full: Literal["wait", "refuse"],
    ) -> None:
        self._connection, self._prefix = connection, prefix
        self._most, self._when_full = most, when_full
        self._looking = asyncio.Lock()
        self._look_at = 0.0

    async def admit(self) -> None:
        """Returns once there is room. Raises Unavailable where there is none and none is waited for."""
        now = asyncio.get_running_loop().time
        async with self._looking:
            while now() >= self._look_at:
                self._look_at = now() + LOOK_EVERY_S
                behind = await self._behind()
                if behind <= self._most:
                    return
                if self._when_full == "refuse":
                    self._look_at = 0.0
                    raise Unavailable(
                        f"The stages are {behind:,} events behind, more than {self._most:,}: publish it "
                        "again later. `hybrid-memory status` shows which stage is slow."
                    )
                await asyncio.sleep(LOOK_EVERY_S)

    async def _behind(self) -> int:
        groups = {group_of(self._prefix, name): name for name in PATH}
        reads = {group: PATH[name].under(self._prefix) for group, name in groups.items()}
        states = await group_states(self._connection, reads)
        return behind({groups[group]: state for group, state in states.items()})


async def nothing_on_its_way(connection: KafkaConnection, prefix: str) -> bool:
    """Whether the record has all that was published before; False also where nobody can say.

    One stage after the other: what one of them has just let go, the next one still has to read.
    """
    try:
        for stage in TO_THE_RECORD:
            group = group_of(prefix, stage)
            states = await group_states(connection, {group: PATH[stage].under(prefix)})
            state = states[group]
            if state is None or state.lag:
                return False
    except PipelineError:
        return False
    return True


def behind(states: Mapping[str, GroupState | None]) -> int:
    """Events on their way, by the slower of the two stores."""
    lag = {name: state.lag if state else 0 for name, state in states.items()}
    return lag["classifier"] + lag["embedder"] + max(lag["record_writer"], lag["vector_writer"])
