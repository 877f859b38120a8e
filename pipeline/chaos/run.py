"""One chaos run: a stack of its own, the plan's events and faults, quiet, the verdict."""

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pipeline.chaos.checking import Letter, Seen, Told, judged
from pipeline.chaos.conversations import Reading, Talk
from pipeline.chaos.disk import own_disk
from pipeline.chaos.faults import Stage
from pipeline.chaos.feeding import Feed
from pipeline.chaos.lives import Recall, Use
from pipeline.chaos.own_stack import (
    PREFIX,
    Pids,
    Signs,
    addresses,
    proxied,
    serving,
    until_serving,
    verified,
)
from pipeline.chaos.plan import ChaosPlan
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
from pipeline.chaos.report import Moment, Report
from pipeline.chaos.striking import Striker
from pipeline.chaos.watching import Watch
from pipeline.embedded import Stack
from pipeline.kafka.connection import KafkaConnection
from schemas.topics import DEAD, ENRICHED, EVENTS, RECALLED, STORED

_TRIES = 6
"""Strikes until one hits something: a stage that waits for a slower one before it is seldom at work."""
_STANDSTILL_S = 150.0
"""Stages that commit nothing for so long have not more to say."""
_ASK_AGAIN = ("lifecycle", "tier_writer")
"""What they read follows from answers, and a slice has not questions enough to keep them busy."""


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
        self._has_disk = has_disk
        self._fault = 0
        self._publisher: Publisher | None = None

    async def run(self) -> Report:
        async with AsyncExitStack() as open_:
            self._say("starting a stack of its own")
            brokers, signs = self._plan.brokers, Signs()
            proxies = await open_.enter_async_context(proxied(self._data, brokers))
            stack = await open_.enter_async_context(serving(self._data, brokers, proxies, signs))
            kafka = KafkaConnection(stack.kafka_bootstrap_servers)
            watch = await open_.enter_async_context(Watch(kafka, PREFIX))
            await until_serving(kafka)
            publisher = await open_.enter_async_context(Publisher(kafka, PREFIX))
            self._publisher = publisher
            began = time.monotonic()
            stage = Stage(self._data, Pids(self._data), proxies, self._has_disk)
            striker = Striker(stage, signs, watch, publisher, self._say)
            await self._suffer(striker, publisher)
            lag = await self._quiet(watch)
            # Whoever answers questions has come back, too.
            await publisher.client.counts(timeout_s=60)
            told = Told(publisher.facts, publisher.sent, frozenset(publisher.poison))
            self._say("reading everything")
            read = await _read(stack, kafka)
            differing = await verified(self._data, addresses(stack, proxies))
        # The stack has ended: the index has no owner any more.
        seen = read.with_index(await asyncio.to_thread(read_index, self._data / "qdrant"))
        return Report(
            plan=self._plan,
            strikes=striker.strikes,
            skipped=striker.skipped(self._plan.faults),
            verdict=judged(told, seen),
            published=publisher.published,
            answered=publisher.answered,
            unanswered=publisher.unanswered,
            refused=publisher.refused,
            lag=lag,
            differing=differing,
            took_s=time.monotonic() - began,
        )

    async def _suffer(self, striker: Striker, publisher: Publisher) -> None:
        """Publishes slice after slice, each with its fault."""
        try:
            async with asyncio.TaskGroup() as publishing:
                feed = Feed(publisher, publishing)
                for fault, steps in zip(self._plan.faults, self._plan.slices, strict=True):
                    self._fault += 1
                    feed.take(steps, ask_again=fault.target in _ASK_AGAIN)
                    for _ in range(_TRIES):
                        if not striker.possible(fault) or await striker.strike(fault, feed):
                            break
                    await feed.rest()
                self._say("publishing the rest")
        except ExceptionGroup as group:
            # What ended the run is told by itself: a stack that does not come back is no bug of ours.
            raise group.exceptions[0] from group

    async def _quiet(self, watch: Watch) -> dict[str, int]:
        """Until every stage has read everything, or none gets any further; what is left."""
        moved_at, before = time.monotonic(), {}
        while time.monotonic() - moved_at < _STANDSTILL_S:
            lag = await watch.lag()
            self._say(f"waiting for {sum(lag.values()):,} records to be read")
            if not any(lag.values()) and lag == before:
                break
            if lag != before:
                moved_at, before = time.monotonic(), lag
            await asyncio.sleep(0.5)
        return before

    def _say(self, doing: str, *, strikes: bool = False) -> None:
        published = self._publisher.published if self._publisher else 0
        faults = len(self._plan.faults)
        self._tell(Moment(published, self._plan.events, doing, strikes, self._fault, faults))


async def _read(stack: Stack, kafka: KafkaConnection) -> _Read:
    return _Read(
        record=await read_record(stack.postgres_dsn),
        logged=await read_log(kafka, EVENTS.under(PREFIX)),
        notices=await read_notices(kafka, STORED.under(PREFIX)),
        letters=await read_letters(kafka, DEAD.under(PREFIX)),
        recalls=await read_recalls(kafka, RECALLED.under(PREFIX)),
        readings=await read_readings(kafka, ENRICHED.under(PREFIX)),
    )
