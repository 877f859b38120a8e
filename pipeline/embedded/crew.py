"""The processes of one stack: started parts first, then stages, and stopped the other way round."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipeline.embedded.guard import LEAVE
from pipeline.embedded.keeper import Keeper, Phase, Progress
from pipeline.embedded.plan import Part, Plan, Process, parts_of, stack_of
from pipeline.embedded.process import Command, marked
from pipeline.embedded.state import DataLock, PartState, Stack, announce
from pipeline.errors import Refused

_GUARD = Path(__file__).with_name("guard.py")
_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_STAGE_STOP_TIMEOUT_S = 60.0
"""A stage finishes the batch in flight, which may take most of a minute."""
_HOUSEKEEPING_INTERVAL_S = 30.0


class Crew:
    """The processes of one stack, in the order in which they stop."""

    def __init__(self, plan: Plan, on_progress: Callable[[Progress], None], lock: DataLock) -> None:
        self._plan = plan
        self._on_progress = on_progress
        self._parts = parts_of(plan)
        self._parts_kept: dict[str, Keeper] = {}
        self._stages_kept: dict[str, Keeper] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stack: Stack | None = None
        self._announced = True
        # The guard reads one end; nobody else inherits the other: it closes when this process ends.
        self._leash = os.pipe()
        guard = Command(
            argv=[sys.executable, "-P", str(_GUARD), str(plan.data)],
            cwd=plan.data,
            log=plan.data / "logs" / "guard.log",
            stop_signal=LEAVE,
            leashed=False,
            stdin=self._leash[0],
            pass_fds=(lock.fd,),
        )
        self._guard = Keeper("guard", guard, tell=_in_silence)

    async def live(self, on_ready: Callable[[Stack], None]) -> None:
        """Start everything and keep it; returns never, raises when a part does not start."""
        self._tasks.append(self._guard.start())
        await self._start_parts()
        self._stack = stack_of(self._plan, self._parts)
        for stage in self._distinct(self._plan.stages(self._stack)):
            await self._start_stage(stage)
        announce(self._told_stack(), aside=self._plan.aside)
        on_ready(self._told_stack())
        self._tasks.append(asyncio.create_task(self._keep_house()))
        # Not gather: when this is cancelled, the keepers must go on until they are told to stop.
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stages together, then one part after the other, then the guard."""
        await asyncio.gather(*(keeper.stop() for keeper in self._stages_kept.values()))
        for name in ("valkey", "postgres"):
            if keeper := self._parts_kept.get(name):
                await keeper.stop()
        # Together: a node that is left without the others cannot leave its cluster in peace.
        nodes = [node.name for node in self._parts.kafka]
        await asyncio.gather(
            *(self._parts_kept[name].stop() for name in nodes if name in self._parts_kept)
        )
        await self._guard.stop()
        for task in self._tasks:
            task.cancel()
        for end in self._leash:
            os.close(end)

    def kill(self) -> None:
        for keeper in (*self._stages_kept.values(), *self._parts_kept.values()):
            keeper.kill()

    async def _start_parts(self) -> None:
        try:
            async with asyncio.TaskGroup() as starting:
                for part in self._parts.by_name().values():
                    starting.create_task(self._start_part(part))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the others were told to stop because of it

    async def _start_part(self, part: Part) -> None:
        def tell(phase: Phase, detail: str) -> None:
            self._on_progress(Progress(part.name, phase, detail))

        tell("preparing", "")
        await part.prepare(lambda detail: tell("preparing", detail))
        keeper = Keeper(
            part.name, part.command(), tell=tell, changed=self._changed, ready=part.ready
        )
        self._parts_kept[part.name] = keeper
        self._tasks.append(keeper.start())
        await keeper.first_ready()

    def _distinct(self, stages: Sequence[Process]) -> Sequence[Process]:
        names = [*self._parts_kept, *(stage.name for stage in stages)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise Refused(f"Two processes would have one name: {', '.join(sorted(twice))}.")
        return stages

    async def _start_stage(self, stage: Process) -> None:
        def tell(phase: Phase, detail: str) -> None:
            self._on_progress(Progress(stage.name, phase, detail))

        command = Command(
            argv=stage.argv,
            cwd=Path.cwd(),
            log=self._plan.data / "logs" / f"{stage.name}.log",
            env=marked(self._plan.data, **stage.env),
            stop_timeout_s=_STAGE_STOP_TIMEOUT_S,
        )
        keeper = Keeper(stage.name, command, tell=tell, changed=self._changed, pauses_s=(1.0, 30.0))
        self._stages_kept[stage.name] = keeper
        self._tasks.append(keeper.start())
        await keeper.first_ready()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.to_thread(bound_logs, self._plan.data / "logs")
            if not self._announced:
                self._changed()
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL_S)

    def _changed(self) -> None:
        """A process has another pid. Where the disk is full, that is told later: nothing is stopped."""
        if self._stack:
            try:
                announce(self._told_stack(), aside=self._plan.aside)
                self._announced = True
            except OSError:
                self._announced = False

    def _told_stack(self) -> Stack:
        assert self._stack
        addresses = {name: part.address for name, part in self._parts.by_name().items()}
        parts = {
            name: PartState(keeper.pid, addresses[name], keeper.halted)
            for name, keeper in self._parts_kept.items()
        }
        stages = {
            name: PartState(keeper.pid, halted=keeper.halted)
            for name, keeper in self._stages_kept.items()
        }
        return replace(self._stack, parts=parts | stages)


def bound_logs(logs: Path, *, limit_bytes: int = _LOG_LIMIT_BYTES) -> None:
    """Keep each log below a limit, with one predecessor; the writers append and notice nothing."""
    for log in logs.glob("*.log"):
        # A full disk, or a log that somebody removed, is no reason to stop the stack.
        with suppress(OSError):
            if log.stat().st_size > limit_bytes:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)


def _in_silence(_phase: Phase, _detail: str) -> None:
    """The guard is no part that anybody asked for."""
