"""The whole stack on this machine, in the foreground: parts first, then stages, until asked to stop.

A part whose address is given from outside is not started. The parts start side by side; the stages
start when all answer. Stopping goes the other way: stages, Valkey, PostgreSQL, Kafka.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pipeline.embedded.guard import LEAVE, end_leftovers, leftovers
from pipeline.embedded.kafka_node import KafkaNode, NodePorts
from pipeline.embedded.ports import keep_ports
from pipeline.embedded.postgres_node import PostgresNode
from pipeline.embedded.process import Command, Keeper, Phase, Progress, marked
from pipeline.embedded.state import DataLock, PartState, Stack, announce, withdraw
from pipeline.embedded.valkey_node import ValkeyNode
from pipeline.errors import Refused

_GUARD = Path(__file__).with_name("guard.py")
_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_LOG_CHECK_INTERVAL_S = 30.0
# Two Ctrl-C closer than this are one: some launchers pass on what the terminal also sends.
_ONE_KEYPRESS_S = 0.5


@dataclass(frozen=True)
class Process:
    """A stage to keep running: its command line, and the environment it needs beside ours."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])


def no_stages(_: Stack) -> Sequence[Process]:
    return ()


@dataclass(frozen=True)
class Plan:
    """What to run. An address given here is used, and that part is not started.

    `ports` may name "kafka", "kafka-controller", "postgres" and "valkey"; the others are free ones,
    the same as last time where possible. `kafka_jars` is a folder of jars, None to have them fetched.
    """

    data: Path
    kafka_bootstrap_servers: str | None = None
    postgres_dsn: str | None = None
    redis_url: str | None = None
    kafka_jars: Path | None = None
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    stages: Callable[[Stack], Sequence[Process]] = no_stages


class _Part(Protocol):
    name: str

    @property
    def address(self) -> str: ...
    async def prepare(self, say: Callable[[str], None]) -> None: ...
    def command(self) -> Command: ...
    async def ready(self) -> bool: ...


async def run(
    plan: Plan,
    *,
    on_progress: Callable[[Progress], None],
    on_ready: Callable[[Stack], None] = lambda _: None,
) -> None:
    """`serve` until SIGINT, SIGTERM or SIGHUP; a second SIGINT ends everything at once."""
    until, at_once = asyncio.Event(), asyncio.Event()
    first_asked_at = 0.0

    def asked(number: int) -> None:
        nonlocal first_asked_at
        now = time.monotonic()
        if not until.is_set():
            first_asked_at = now
            until.set()
        elif number == signal.SIGINT and now - first_asked_at > _ONE_KEYPRESS_S:
            at_once.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked, number)
    await serve(plan, on_progress=on_progress, on_ready=on_ready, until=until, at_once=at_once)


async def serve(
    plan: Plan,
    *,
    on_progress: Callable[[Progress], None],
    until: asyncio.Event,
    on_ready: Callable[[Stack], None] = lambda _: None,
    at_once: asyncio.Event | None = None,
) -> None:
    """Run the stack until `until` is set; nothing is left running when this returns or raises.

    `on_ready` is called once, when every part answers and the stages were started. `at_once` cuts
    the stop short: everything is killed. Raises Refused where the data folder or a given port is in
    use, Unavailable where a part cannot be had or does not start.
    """
    plan = replace(plan, data=_made(plan.data))
    lock = DataLock(plan.data)
    await lock.take()
    try:
        crew = _Crew(plan, on_progress, lock)
        living = asyncio.create_task(crew.live(on_ready))
        try:
            await _first_of(until.wait(), living)
        finally:
            await _stop(crew, living, at_once or asyncio.Event())
    finally:
        withdraw(plan.data)
        lock.release()


class _Crew:
    """The processes of one stack, in the order in which they stop."""

    def __init__(self, plan: Plan, on_progress: Callable[[Progress], None], lock: DataLock) -> None:
        self._plan = plan
        self._on_progress = on_progress
        self._parts = _parts_of(plan)
        self._parts_kept: dict[str, Keeper] = {}
        self._stages_kept: dict[str, Keeper] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stack: Stack | None = None
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
        self._guard = Keeper("guard", guard, tell=lambda *_: None)

    async def live(self, on_ready: Callable[[Stack], None]) -> None:
        """Start everything and keep it; returns never, raises when a part does not start."""
        if await asyncio.to_thread(leftovers, self._plan.data):
            await asyncio.to_thread(end_leftovers, self._plan.data)
        self._tasks.append(self._guard.start())
        await self._start_parts()
        self._stack = _stack_of(self._plan, self._parts)
        for stage in self._plan.stages(self._stack):
            await self._start_stage(stage)
        self._announce()
        on_ready(self._told_stack())
        self._tasks.append(asyncio.create_task(_bound_logs(self._plan.data / "logs")))
        # Not gather: when this is cancelled, the keepers must go on until they are told to stop.
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stages together, then one part after the other, then the guard."""
        await asyncio.gather(*(keeper.stop() for keeper in self._stages_kept.values()))
        for name in ("valkey", "postgres", "kafka"):
            if keeper := self._parts_kept.get(name):
                await keeper.stop()
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
                for part in self._parts.values():
                    starting.create_task(self._start_part(part))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the others were told to stop because of it

    async def _start_part(self, part: _Part) -> None:
        def tell(phase: Phase, detail: str) -> None:
            self._on_progress(Progress(part.name, phase, detail))

        tell("preparing", "")
        await part.prepare(lambda detail: tell("preparing", detail))
        keeper = Keeper(
            part.name, part.command(), tell=tell, changed=self._announce, ready=part.ready
        )
        self._parts_kept[part.name] = keeper
        self._tasks.append(keeper.start())
        await keeper.first_ready()

    async def _start_stage(self, stage: Process) -> None:
        def tell(phase: Phase, detail: str) -> None:
            self._on_progress(Progress(stage.name, phase, detail))

        command = Command(
            argv=stage.argv,
            cwd=Path.cwd(),
            log=self._plan.data / "logs" / f"{stage.name}.log",
            env=marked(self._plan.data, **stage.env),
        )
        keeper = Keeper(
            stage.name, command, tell=tell, changed=self._announce, pauses_s=(1.0, 30.0)
        )
        self._stages_kept[stage.name] = keeper
        self._tasks.append(keeper.start())
        await keeper.first_ready()

    def _announce(self) -> None:
        if self._stack:
            announce(self._told_stack())

    def _told_stack(self) -> Stack:
        assert self._stack
        parts = {
            name: PartState(keeper.pid, self._parts[name].address)
            for name, keeper in self._parts_kept.items()
        }
        stages = {name: PartState(keeper.pid) for name, keeper in self._stages_kept.items()}
        return replace(self._stack, parts=parts | stages)


async def _stop(crew: _Crew, living: asyncio.Task[None], at_once: asyncio.Event) -> None:
    living.cancel()
    with suppress(asyncio.CancelledError, Exception):  # its error was raised already
        await living
    stopping = asyncio.create_task(crew.stop())
    await _first_of(at_once.wait(), stopping)
    if not stopping.done():
        crew.kill()
    await stopping


async def _first_of(event: Any, task: asyncio.Task[None]) -> None:
    """Until the event happens or the task is done; raises what the task raised."""
    waiting = asyncio.ensure_future(event)
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if task.done():
        task.result()


def _made(data: Path) -> Path:
    data = data.expanduser().resolve()
    try:
        (data / "qdrant").mkdir(parents=True, exist_ok=True, mode=0o700)
        data.chmod(0o700)
    except OSError as error:
        raise Refused(f"The data folder {data} cannot be used: {error}. Give another with --data.")
    return data


def _parts_of(plan: Plan) -> dict[str, _Part]:
    names: list[str] = []
    names += [] if plan.kafka_bootstrap_servers else ["kafka", "kafka-controller"]
    names += [] if plan.postgres_dsn else ["postgres"]
    names += [] if plan.redis_url else ["valkey"]
    ports = keep_ports(plan.data / "ports.json", names, plan.ports)
    parts: list[_Part] = []
    if "kafka" in ports:
        node = NodePorts(ports["kafka"], ports["kafka-controller"])
        parts.append(KafkaNode(plan.data, [node], plan.kafka_jars))
    if "postgres" in ports:
        parts.append(PostgresNode(plan.data, ports["postgres"]))
    if "valkey" in ports:
        parts.append(ValkeyNode(plan.data, ports["valkey"]))
    return {part.name: part for part in parts}


def _stack_of(plan: Plan, parts: Mapping[str, _Part]) -> Stack:
    kafka = plan.kafka_bootstrap_servers or parts["kafka"].address
    postgres, valkey = parts.get("postgres"), parts.get("valkey")
    return Stack(
        data=plan.data,
        pid=os.getpid(),
        started_at=time.time(),
        kafka_bootstrap_servers=kafka,
        postgres_dsn=postgres.dsn if isinstance(postgres, PostgresNode) else plan.postgres_dsn or "",
        redis_url=valkey.url if isinstance(valkey, ValkeyNode) else plan.redis_url or "",
        qdrant_path=plan.data / "qdrant",
    )


async def _bound_logs(logs: Path) -> None:
    """Keep each log below a limit, with one predecessor; the writers append and notice nothing."""
    while True:
        for log in logs.glob("*.log"):
            if log.stat().st_size > _LOG_LIMIT_BYTES:
                await asyncio.to_thread(shutil.copyfile, log, log.with_suffix(".log.1"))
                os.truncate(log, 0)
        await asyncio.sleep(_LOG_CHECK_INTERVAL_S)
