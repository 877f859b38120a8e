"""One chaos run: a stack of its own, the plan's events and faults, quiet, the verdict."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from pipeline import app
from pipeline.chaos.checking import Letter, Seen, Told, Verdict, judged
from pipeline.chaos.conversations import Reading, Talk
from pipeline.chaos.disk import own_disk
from pipeline.chaos.faults import Stage, running, struck
from pipeline.chaos.lives import Recall, Use
from pipeline.chaos.plan import DISK, ROLES, ChaosPlan, Fault, Step, nodes
from pipeline.chaos.proxy import Proxy
from pipeline.chaos.publishing import Publisher
from pipeline.chaos.reading import (
    InIndex,
    InRecord,
    Notices,
    read_index,
    read_letters,
    read_log,
    read_notices,
    read_readings,
    read_recalls,
    read_record,
)
from pipeline.chaos.watching import READS, Watch
from pipeline.embedded import Plan, Process, Progress, Stack, discover, serve
from pipeline.embedded.ports import HOST, keep_ports
from pipeline.ending import ended
from pipeline.errors import Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import group_members
from pipeline.kafka.records import group_of
from pipeline.settings import Settings
from schemas.topics import DEAD, ENRICHED, EVENTS, RECALLED, STORED

PREFIX = "memory"
_CHUNK = 40
"""Steps that are published side by side."""
_TRIES = 6
"""Strikes until one hits something: a stage that waits for a slower one before it is seldom at work."""
_AIM_S = 60.0
"""How long a fault waits for its target to be at work."""
_DRY_S = 5.0
"""How long it waits once its slice is used up and nothing lags: no more work comes by then."""
_RECOVERY_S = 120.0
_STANDSTILL_S = 150.0
"""Stages that commit nothing for so long have not more to say."""
_ASK_AGAIN = ("lifecycle", "tier_writer")
"""What they read follows from answers, and a slice has not questions enough to keep them busy."""
_MOST_ASKING = 12
"""Questions side by side, where they are asked again."""
_POLL_S = 0.005
_FIRST_START_S = 600.0
"""The first time a model is measured."""


@dataclass(frozen=True)
class Moment:
    """What goes on now, for whoever watches."""

    published: int
    of: int
    doing: str
    strikes: bool = False
    """A fault is on from now."""
    fault: int = 0
    """Which of `faults` it is, from 1; 0 before the first."""
    faults: int = 0


@dataclass(frozen=True)
class Strike:
    """One fault as it happened."""

    fault: Fault
    in_flight: int
    """Calls and records that were under way in what it struck; 0: it hit nothing."""
    at_s: float
    """Since the first event was published."""


@dataclass(frozen=True)
class Report:
    """How a run ended."""

    plan: ChaosPlan
    strikes: Sequence[Strike]
    skipped: Sequence[str]
    verdict: Verdict
    published: int
    answered: int
    """Questions; what they told first was recalled."""
    unanswered: int
    refused: Sequence[str]
    """Why a call was refused that was right."""
    lag: Mapping[str, int]
    """What was left at the end; 0 everywhere unless a stage stood still."""
    differing: Mapping[str, int]
    """What `verify` found to mend, and how often."""
    took_s: float

    @property
    def hollow(self) -> list[str]:
        """Faults that never hit anything in flight: they proved nothing."""
        tried = {strike.fault.name for strike in self.strikes}
        hit = {strike.fault.name for strike in self.strikes if strike.in_flight}
        return sorted(tried - hit)

    @property
    def ok(self) -> bool:
        wrong = self.verdict.findings or self.refused or self.hollow
        return not wrong and not any(self.lag.values()) and not self.differing


async def verified(data: Path, env: Mapping[str, str]) -> Mapping[str, int]:
    """What `hybrid-memory verify` finds in the stack of that folder, by kind: nothing, if all is well.

    Raises Unavailable where it cannot say.
    """
    verify = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.cli", "verify", "--json", "--data", str(data)),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, told = await verify.communicate()
    finally:
        if verify.returncode is None:
            verify.kill()
    try:
        report = json.loads(said)
        return {**report["kinds"], **({"undecided": n} if (n := report["in_flight"]) else {})}
    except (ValueError, KeyError) as error:
        raise Unavailable(f"`verify` does not say what it found: {told.decode()[-500:]}") from error


def in_flight_of(target: str) -> tuple[str, ...]:
    """The stages whose work a fault on `target` interrupts."""
    served = {"postgres": ("record_writer",), "valkey": ("embedder",)}
    return served.get(target) or ((target,) if target in ROLES else (*READS,))


async def chaos(plan: ChaosPlan, folder: Path, watch: Callable[[Moment], None]) -> Report:
    """Runs the plan on a stack in `folder`, which is its own. Its logs are left in `<folder>/logs`.

    The caller sees to it that this process and those it starts speak of no other stack.
    Raises Unavailable where the stack does not start, or ends before its time.
    """
    data = folder / "data"
    data.mkdir()
    with own_disk(data) as has_disk:
        try:
            return await _Run(plan, data, watch, has_disk=has_disk).run()
        finally:
            if (data / "logs").is_dir():
                shutil.copytree(data / "logs", folder / "logs", dirs_exist_ok=True)


@dataclass
class _Signs:
    """What the supervisor tells of the processes."""

    ready: dict[str, int] = field(default_factory=dict[str, int])
    """How often each part answered after a start."""

    def __call__(self, progress: Progress) -> None:
        if progress.phase in ("ready", "running"):
            self.ready[progress.part] = self.ready.get(progress.part, 0) + 1


class _Pids(Mapping[str, int | None]):
    """The processes of the stack, as it announces them."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def _now(self) -> dict[str, int | None]:
        stack = discover(self._data)
        return {name: part.pid for name, part in stack.parts.items()} if stack else {}

    def __getitem__(self, name: str) -> int | None:
        return self._now()[name]

    def __iter__(self):
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


@dataclass(frozen=True)
class _Read:
    """What was read while the stack ran: all but the index."""

    record: InRecord
    logged: Mapping[UUID, int]
    notices: Notices
    letters: Sequence[Letter]
    recalls: Sequence[Recall]
    readings: Mapping[Reading, set[str]]

    def with_index(self, index: InIndex) -> Seen:
        return Seen(
            stores={"record": self.record.held, "index": index.held},
            logged=self.logged,
            notices=self.notices.done,
            letters=self.letters,
            talk=Talk(self.record.turns, index.contexts, self.readings),
            use=Use(
                self.record.lives,
                index.lives,
                self.record.hours,
                self.recalls,
                self.notices.stored_at_ms,
            ),
        )


class _Run:
    def __init__(
        self, plan: ChaosPlan, data: Path, watch: Callable[[Moment], None], *, has_disk: bool
    ) -> None:
        self._plan, self._data, self._tell = plan, data, watch
        self._signs = _Signs()
        self._died_at: dict[str, int] = {}
        """How far each stage had committed when it was killed last, for its own sake or another's."""
        self._strikes: list[Strike] = []
        self._fault = 0
        self._publishing: set[asyncio.Task[None]] = set()
        self._stage = Stage(data, _Pids(data), {}, has_disk)
        self._began = time.monotonic()

    async def run(self) -> Report:
        async with AsyncExitStack() as open_:
            names = [*nodes(self._plan.brokers), "postgres", "valkey"]
            self._say("starting a stack of its own")
            ports = keep_ports(self._data / "ports.json", _all_ports(names), {})
            proxies = {
                name: await open_.enter_async_context(
                    Proxy(ports[f"{name}-proxy"], ports[name]).serving()
                )
                for name in names
            }
            self._stage = replace(self._stage, proxies=proxies)
            stack = await open_.enter_async_context(self._stack(proxies))
            kafka = KafkaConnection(stack.kafka_bootstrap_servers)
            watch = await open_.enter_async_context(Watch(kafka, PREFIX))
            await _until_serving(kafka)
            self._publisher = await open_.enter_async_context(Publisher(kafka, PREFIX))
            self._watch = watch
            await self._suffer()
            lag = await self._quiet()
            told = self._told()
            read = await self._read(stack, kafka)
            differing = await verified(self._data, addresses(stack, proxies))
        # The stack has ended: the index has no owner any more.
        seen = read.with_index(await asyncio.to_thread(read_index, self._data / "qdrant"))
        return Report(
            plan=self._plan,
            strikes=self._strikes,
            skipped=self._skipped(),
            verdict=judged(told, seen),
            published=self._publisher.published,
            answered=self._publisher.answered,
            unanswered=self._publisher.unanswered,
            refused=self._publisher.refused,
            lag=lag,
            differing=differing,
            took_s=time.monotonic() - self._began,
        )

    @asynccontextmanager
    async def _stack(self, proxies: Mapping[str, Proxy]) -> AsyncGenerator[Stack]:
        until = asyncio.Event()
        ready: asyncio.Future[Stack] = asyncio.get_running_loop().create_future()
        plan = Plan(
            self._data,
            brokers=self._plan.brokers,
            kafka_advertised=[proxies[name].port for name in nodes(self._plan.brokers)],
            stages=lambda stack: _stages(stack, proxies),
        )
        serving = asyncio.create_task(
            serve(plan, on_progress=self._signs, on_ready=ready.set_result, until=until)
        )
        try:
            await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await ended(serving)
            raise
        if serving.done():
            serving.result()
        serving.add_done_callback(partial(_end_with, asyncio.current_task(), until))
        try:
            yield ready.result()
        finally:
            too_early = serving.done()
            until.set()
            await serving
            if too_early:
                raise Unavailable("The stack ended before its time.")

    async def _suffer(self) -> None:
        """Publishes slice after slice, each with its fault."""
        self._began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as publishing:
                for fault, steps in zip(self._plan.faults, self._plan.slices, strict=True):
                    self._fault += 1
                    await self._suffer_one(fault, steps, publishing)
                self._say("publishing the rest")
        except ExceptionGroup as group:
            # What ended the run is told by itself: a stack that does not come back is no bug of ours.
            raise group.exceptions[0] from group

    async def _suffer_one(
        self, fault: Fault, steps: Sequence[Step], publishing: asyncio.TaskGroup
    ) -> None:
        chunks = deque(steps[i : i + _CHUNK] for i in range(0, len(steps), _CHUNK))
        again = [step for step in steps if step.kind == "asked"]
        if fault.target not in _ASK_AGAIN:
            again = []
        feed = partial(self._feed, chunks, publishing, deque(again))
        for _ in range(_TRIES):
            if not self._possible(fault) or await self._strike(fault, feed):
                break
        while chunks:
            await self._room()
            feed()

    async def _room(self) -> None:
        """Until few calls wait for Kafka: thousands side by side would each go on when they can,
        and the order of a plan would be lost on what is quick, poison first."""
        while len(self._publishing) >= _CHUNK:
            await asyncio.wait(self._publishing, return_when=asyncio.FIRST_COMPLETED)

    def _feed(
        self,
        chunks: deque[Sequence[Step]],
        publishing: asyncio.TaskGroup,
        again: deque[Step],
    ) -> bool:
        """Publishes the next steps, and asks `again` what was asked, in turn; whether there is any of that."""
        there_is = bool(chunks or again)
        if chunks:
            task = publishing.create_task(self._publisher.publish(chunks.popleft()))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
        if again and self._publisher.asking < _MOST_ASKING:
            publishing.create_task(self._publisher.ask([again[0]]))
            again.rotate(-1)
        return there_is

    async def _strike(self, fault: Fault, feed: Callable[[], bool]) -> bool:
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
        self._strikes.append(Strike(fault, in_flight, round(at_s, 1)))
        self._say(f"after: {fault.name}")
        await self._recovered(fault, ready_before)
        return in_flight > 0

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
            if lag or self._publisher.in_progress >= _CHUNK or feed():
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

    def _possible(self, fault: Fault) -> bool:
        return fault.target != DISK or self._stage.own_disk or _can_limit_files()

    def _skipped(self) -> list[str]:
        told = [fault.name for fault in self._plan.faults if not self._possible(fault)]
        if not self._stage.own_disk and not told:
            told = ["disk full: only for the vector writer's files, the disk is not ours to fill"]
        return told

    async def _quiet(self) -> dict[str, int]:
        """Until every stage has read everything, or none gets any further; what is left."""
        moved_at, before = time.monotonic(), {}
        while time.monotonic() - moved_at < _STANDSTILL_S:
            lag = await self._watch.lag()
            self._say(f"waiting for {sum(lag.values()):,} records to be read")
            if not any(lag.values()) and lag == before:
                break
            if lag != before:
                moved_at, before = time.monotonic(), lag
            await asyncio.sleep(0.5)
        # Whoever answers questions has come back, too.
        await self._publisher.client.counts(timeout_s=60)
        return before

    def _told(self) -> Told:
        publisher = self._publisher
        return Told(publisher.facts, publisher.sent, frozenset(publisher.poison))

    async def _read(self, stack: Stack, kafka: KafkaConnection) -> "_Read":
        self._say("reading everything")
        return _Read(
            record=await read_record(stack.postgres_dsn),
            logged=await read_log(kafka, EVENTS.under(PREFIX)),
            notices=await read_notices(kafka, STORED.under(PREFIX)),
            letters=await read_letters(kafka, DEAD.under(PREFIX)),
            recalls=await read_recalls(kafka, RECALLED.under(PREFIX)),
            readings=await read_readings(kafka, ENRICHED.under(PREFIX)),
        )

    def _say(self, doing: str, *, strikes: bool = False) -> None:
        publisher = getattr(self, "_publisher", None)
        published = publisher.published if publisher else 0
        faults = len(self._plan.faults)
        self._tell(Moment(published, self._plan.events, doing, strikes, self._fault, faults))


def _end_with(run: asyncio.Task[Any] | None, until: asyncio.Event, _: asyncio.Task[None]) -> None:
    """Without its stack a run would wait for ever."""
    if run is not None and not until.is_set():
        run.cancel()


def _all_ports(names: Sequence[str]) -> list[str]:
    controllers = [f"{name}-controller" for name in names if name.startswith("kafka")]
    return [*names, *controllers, *(f"{name}-proxy" for name in names)]


def _leaves_kafka(fault: Fault) -> bool:
    """Whether Kafka can be asked while the fault is on."""
    return fault.target != DISK and not fault.target.startswith("kafka")


def _can_limit_files() -> bool:
    import psutil

    return hasattr(psutil, "RLIMIT_FSIZE")


def _stages(stack: Stack, proxies: Mapping[str, Proxy]) -> list[Process]:
    """The stages as `up` starts them, but behind the proxies, and with an embedder that refuses."""
    settings = Settings(_env_file=None, qdrant_url=None)  # pyright: ignore[reportCallIssue]
    return [
        Process(
            process.name,
            [_brittle(word) if process.name == "embedder" else word for word in process.argv],
            {**process.env, **addresses(stack, proxies)},
        )
        for process in app.stage_processes(settings, stack)
    ]


def _brittle(word: str) -> str:
    return "pipeline.chaos.brittle" if word == "pipeline.cli" else word


def addresses(stack: Stack, proxies: Mapping[str, Proxy]) -> dict[str, str]:
    """Settings that lead to this stack and to no other one, whatever the user's own say."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap_servers,
        "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "POSTGRES_DSN": _through(stack.postgres_dsn, proxies["postgres"]),
        "REDIS_URL": _through(stack.redis_url, proxies["valkey"]),
        # Empty: Qdrant Edge, in the stack's folder.
        "QDRANT_URL": "",
        "TOPIC_PREFIX": PREFIX,
    }


def _through(address: str, proxy: Proxy) -> str:
    own = urlsplit(address)
    return address.replace(f"@{own.hostname}:{own.port}", f"@{HOST}:{proxy.port}")


async def _until_serving(kafka: KafkaConnection) -> None:
    groups = [group_of(PREFIX, stage) for stage in (*READS, "query", "operator_desk")]
    async with asyncio.timeout(_FIRST_START_S):
        while True:
            members = await group_members(kafka, groups)
            if all(members.get(group) for group in groups):
                return
            await asyncio.sleep(0.3)
