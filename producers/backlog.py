"""memory.events -> the stages: how far they are behind, for a publisher that should not run away from them.

Kafka keeps what the stages have not read yet, on disk and for days; a publisher's own memory is bounded in
any case, for it waits for acknowledgements. This is for those who would rather publish less than be late.
"""

import asyncio
from collections.abc import Mapping
from typing import Literal

import structlog

from pipeline.errors import PipelineError, Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import GroupState, group_states
from pipeline.kafka.records import group_of
from schemas.topics import CLASSIFIED, ENRICHED, EVENTS, Topic

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
TELL_EVERY_S = 30.0
"""Waiting may take long: who wonders finds it in the log."""

PATH: Mapping[str, Topic] = {
    "classifier": EVENTS,
    "embedder": CLASSIFIED,
    "record_writer": ENRICHED,
    "vector_writer": ENRICHED,
}
"""The stages that an event goes through, and what each reads."""
TO_THE_RECORD = ("classifier", "embedder", "record_writer")


def check_limit(most: object, when_full: object) -> None:
    """Raises Refused where these cannot be meant: 0 would be waited for without an end."""
    is_limit = isinstance(most, int) and not isinstance(most, bool) and most >= 1
    if most is not None and not is_limit:
        raise Refused(f"most_behind: is {most!r}: it must be 1 or more, or left out.")
    if when_full not in ("wait", "refuse"):
        raise Refused(f'when_behind: is {when_full!r}: it must be "wait" or "refuse".')


class Backlog:
    """Holds publishers back, so that the stages are at most `most` events behind."""

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
        self._room = 0
        """How many may be published until it is looked at again."""
        self._closed = False

    async def admit(self, wanted: int) -> int:
        """How many of `wanted` events may be published now: one at least.

        Waits without an end where there is no room: whoever calls may cancel. Raises Unavailable where
        none is waited for, and Refused once it was closed.
        """
        now = asyncio.get_running_loop().time
        tell_at = now() + TELL_EVERY_S
        async with self._looking:
            while not self._room or now() >= self._look_at:
                if self._when_full == "wait":
                    await asyncio.sleep(self._look_at - now())
                if self._closed:
                    raise Refused("The client was closed while it waited for the stages.")
                behind = await self._behind()
                self._look_at = now() + LOOK_EVERY_S
                self._room = max(0, self._most - behind)
                if self._room:
                    break
                if self._when_full == "refuse":
                    raise Unavailable(
                        f"The stages are {behind:,} events behind, and at most {self._most:,} are "
                        "wanted: publish it again later. `hybrid-memory status` shows which stage is slow."
                    )
                if now() >= tell_at:
                    tell_at = now() + TELL_EVERY_S
                    log.warning("publishing waits for the stages", behind=behind, most=self._most)
            admitted = min(wanted, self._room)
            self._room -= admitted
            return admitted

    def close(self) -> None:
        """Who waits is told at the next look."""
        self._closed = True

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
