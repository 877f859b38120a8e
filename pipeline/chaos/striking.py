"""Each fault strikes where something is in flight, and is waited for until what died is back.

A fault that hits nothing proves nothing: it waits for its target to be at work, and notes what was under
way in it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from pipeline.chaos.faults import Stage, running, struck
from pipeline.chaos.feeding import CHUNK
from pipeline.chaos.own_stack import Signs
from pipeline.chaos.plan import DISK, ROLES, Fault
from pipeline.chaos.publishing import Publisher
from pipeline.chaos.report import Strike
from pipeline.chaos.watching import READS, Watch
from pipeline.errors import Unavailable

_AIM_S = 60.0
"""How long a fault waits for its target to be at work."""
_DRY_S = 5.0
"""How long it waits once its slice is used up and nothing lags: no more work comes by then."""
_RECOVERY_S = 120.0
_POLL_S = 0.005


class Striker:
    """Strikes faults at a stage, one after the other; `say` tells what it does."""

    def __init__(
        self,
        stage: Stage,
        signs: Signs,
        watch: Watch,
        publisher: Publisher,
        say: Callable[..., None],
    ) -> None:
        self.strikes: list[Strike] = []
        self._stage, self._signs = stage, signs
        self._watch, self._publisher, self._say = watch, publisher, say
        self._died_at: dict[str, int] = {}
        """How far each stage had committed when it was killed last, for its own sake or another's."""
        self._began = time.monotonic()

    async def strike(self, fault: Fault, feed: Callable[[], bool]) -> bool:
        """Waits until the target is at work, strikes, waits until it is back; whether it hit."""
        stages = in_flight_of(fault.target)
        done, ends = await self._aim(fault, stages, feed)
        calls = self._publisher.in_progress
        beside = self._beside(fault.target)
        ready_before = dict(self._signs.ready)
        at_s = time.monotonic() - self._began
        self._say(fault.name, strikes=True)
        async with struck(self._stage, fault):
            if _leaves_kafka(fault):
                # What was there before it struck and is not committed after was in its hands.
                done, calls = await self._watch.committed(stages), 0
                self._died_at |= await self._watch.committed(beside)
            for _ in range(3):
                feed()
            await asyncio.sleep(fault.seconds)
        in_flight = calls + sum(ends[stage] - done[stage] for stage in stages)
        self.strikes.append(Strike(fault, in_flight, round(at_s, 1)))
        self._say(f"after: {fault.name}")
        await self._recovered(fault, ready_before)
        return in_flight > 0

    def possible(self, fault: Fault) -> bool:
        """Whether it can be done here."""
        return fault.target != DISK or self._stage.own_disk or _can_limit_files()

    def skipped(self, faults: Sequence[Fault]) -> list[str]:
        """Those of them that cannot be done here, or not quite."""
        told = [fault.name for fault in faults if not self.possible(fault)]
        if not self._stage.own_disk and not told:
            told = ["disk full: only for the vector writer's files, the disk is not ours to fill"]
        return told

    async def _aim(
        self, fault: Fault, stages: Sequence[str], feed: Callable[[], bool]
    ) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Until there is something in flight at the target, and it is at work.

        What was committed then, and what there was: asking anew would let a quick stage get away.
        """
        began = fed_at = time.monotonic()
        self._say(f"before: {fault.name}")
        while time.monotonic() - began < _AIM_S:
            works = await self._works(fault, stages)
            ends = await self._watch.ends(stages)
            done = await self._watch.committed(stages)
            lag = sum(ends.values()) - sum(done.values())
            if works and (lag or (not _leaves_kafka(fault) and self._publisher.in_progress)):
                return done, ends
            if lag or self._publisher.in_progress >= CHUNK or feed():
                fed_at = time.monotonic()
            if time.monotonic() - fed_at > _DRY_S and running(self._stage, fault.target):
                break
            await asyncio.sleep(_POLL_S)
        if fault.target in ROLES and running(self._stage, fault.target) is None:
            raise Unavailable(
                f"{fault.target} has been down for {_AIM_S:g} s: its log in the folder below says why."
            )
        return await self._watch.committed(stages), await self._watch.ends(stages)

    async def _works(self, fault: Fault, stages: Sequence[str]) -> bool:
        """Whether the target runs; a role that was killed must have done something since."""
        if fault.target == DISK:
            return all(pid is not None for pid in self._stage.pids.values())
        if running(self._stage, fault.target) is None:
            return False
        if fault.target not in self._died_at:
            return True
        done = await self._watch.committed(stages)
        return done[fault.target] > self._died_at[fault.target]

    def _beside(self, role: str) -> list[str]:
        """The stages that die with a role: all in its process."""
        if role not in ROLES:
            return []
        named = next((name for name in self._stage.pids if role in name.split("+")), "")
        return [name for name in named.split("+") if name in READS]

    async def _recovered(self, fault: Fault, ready_before: Mapping[str, int]) -> None:
        """Until a part that died answers again. A role's recovery is its own affair."""
        began = time.monotonic()
        while time.monotonic() - began < _RECOVERY_S:
            if self._is_back(fault, ready_before):
                await self._watch.lag()
                return
            await asyncio.sleep(0.05)
        raise Unavailable(f"{fault.target} did not come back within {_RECOVERY_S:g} s.")

    def _is_back(self, fault: Fault, ready_before: Mapping[str, int]) -> bool:
        if fault.target == DISK:
            return all(pid is not None for pid in self._stage.pids.values())
        if fault.target in ROLES or fault.manner not in ("killed", "stopped"):
            return True
        return self._signs.ready[fault.target] > ready_before[fault.target]


def in_flight_of(target: str) -> tuple[str, ...]:
    """The stages whose work a fault on `target` interrupts."""
    served = {"postgres": ("record_writer",), "valkey": ("embedder",)}
    return served.get(target) or ((target,) if target in ROLES else (*READS,))


def _leaves_kafka(fault: Fault) -> bool:
    """Whether Kafka can be asked while the fault is on."""
    return fault.target != DISK and not fault.target.startswith("kafka")


def _can_limit_files() -> bool:
    return hasattr(psutil, "RLIMIT_FSIZE")
