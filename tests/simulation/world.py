"""One history from its first record to its last check: the stages themselves, in bad weather.

    records  ->  classifier  ->  embedder  ->  record writer, vector writer      (or these two alone)

Each stage runs in one process or two, delivered to by `StageDelivery`. Processes are killed between any two
awaits, paused until their group has given their partitions away, and asked to stop; requests fail before and
after they were done; the index loses its power; dead letters are redriven at any time. Then the weather
clears, and everything that was accepted has to be where it belongs.
"""

import asyncio
import logging
import random as random_of_the_process
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import structlog
import tenacity

from consumers import classifier, contextualizer, embedder, record_writer, vector_writer
from pipeline.errors import Halted, Unusable
from pipeline.kafka.dead_letters import PREFIX as DEAD_PREFIX
from pipeline.kafka.delivery import StageDelivery
from pipeline.liveness import Liveness
from pipeline.models.classifier import HeuristicClassifier
from pipeline.ports import Embedding
from pipeline.stage import Stage
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import IndexShape
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.topics import DEAD, ENRICHED, EVENTS
from tests.builders import DIMENSIONS, MODEL, direction
from tests.simulation.checks import check
from tests.simulation.history import EPOCH_MS, UNEMBEDDABLE, History
from tests.simulation.kafka import SESSION_S, Broker, Consumer, Group, Log, Producer
from tests.simulation.loop import Process, Stuck, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.stores import Disk, RemotePoints, RemoteRecords
from tests.simulation.weather import Weather

PREFIX = "memory"
SHAPE = IndexShape(MODEL, DIMENSIONS)
SETTLED_S = 200.0
"""Longer than anything in flight may be late."""
PATIENT = 10
_VECTOR_WRITER = "vector_writer"


def simulate(seed: int) -> "World":
    """Runs the history of a seed. Raises AssertionError with the seed where a promise is broken."""
    world = World(seed)
    try:
        world.run()
    except BaseException as error:
        error.add_note(
            f"SIMULATION_SEED={seed}: run it again with\n"
            f"    SIMULATION_SEED={seed} pytest tests/simulation\n{world.told()}"
        )
        raise
    return world


@dataclass(eq=False)
class Member:
    """One process of one stage."""

    process: Process
    stage: str
    consumer: Consumer
    stopping: asyncio.Event


@dataclass
class World:
    """All of one history."""

    seed: int
    trace: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    def __post_init__(self) -> None:
        self.random = random = Random(self.seed)
        self.weather = Weather.drawn(random)
        self.loop = VirtualLoop(self._before, lambda: 0.01 * random.random())
        self.network = Network(self.loop, random, self.weather)
        self.direct = random.random() < 0.8
        partitions = random.randint(1, 3)
        events = random.choice([2, 4, 8, 8, 16])
        self.history = History(random, partitions=partitions, events=events, direct=self.direct)
        self.log = Log(self.network, partitions, EPOCH_MS)
        self.groups: dict[str, Group] = {}
        self.records, self.disk = RecordsInMemory(), Disk()
        self.index = VectorIndex(self.disk.points, SHAPE)
        self.mended = False
        self._members: list[Member] = []
        self._redriven: set[tuple[int, int]] = set()

    # The run

    def run(self) -> None:
        with _determined(self), self.loop.running():
            self.loop.run(self._live(), within_s=20_000, steps=150_000)

    async def _live(self) -> None:
        for stage in self._stages():
            for _ in range(self.random.choice([1, 2, 2])):
                self._start(stage)
        for publication in self.history.publications:
            at = publication.at_s
            self.loop.outside(at, self._append, self.published_to, publication)
        # Storms last longer than anybody publishes: groups and patience take their time.
        storm_s = self.history.published_within_s + self.random.choice([5.0, 60.0])
        while self.loop.time() < storm_s:
            await asyncio.sleep(self.random.uniform(0, 30))
            self._redrive()
        await self._clear_up()
        for error in self.loop.errors:
            raise error
        check(self)

    async def _clear_up(self) -> None:
        self.say("the weather clears")
        self.weather.clear()
        self.mended = True
        for member in self._members:
            if member.process.paused:
                self._resume(member)
        await self._settled()
        self._redrive()
        await self._settled()

    async def _settled(self) -> None:
        """Returns when every stage has read everything, and nothing is on its way any more."""
        for _ in range(PATIENT):
            await asyncio.sleep(SETTLED_S)
            if not self.network.in_flight and not any(g.lag for g in self.groups.values()):
                return
            # A batch that outlived a rebalance may have set the offset back. That repeats, once somebody
            # reads on from there: a new process, say.
            for member in list(self._members):
                self._ask_to_stop(member.process)
        raise Stuck(f"not read: {[group.lag for group in self.groups.values()]}")

    @property
    def published_to(self) -> str:
        return (ENRICHED if self.direct else EVENTS).under(PREFIX)

    def dead(self) -> list[Any]:
        """The dead letters that were not redriven."""
        letters = self.log.records(DEAD.under(PREFIX))
        return [each for each in letters if (each.partition, each.offset) not in self._redriven]

    def _append(self, topic: str, record: Any) -> None:
        self.log.append(topic, record.partition, record.key, record.value, record.headers)

    def _redrive(self) -> None:
        """Publishes every dead letter to where it came from, as an operator would."""
        for letter in self.dead():
            told = {name: value for name, value in letter.headers if name.startswith(DEAD_PREFIX)}
            own = [pair for pair in letter.headers if not pair[0].startswith(DEAD_PREFIX)]
            partition = int(told["dead-partition"])
            self.log.append(told["dead-topic"].decode(), partition, letter.key, letter.value, own)
            self._redriven.add((letter.partition, letter.offset))

    # Processes

    def _stages(self) -> Sequence[str]:
        stages = ["record_writer", _VECTOR_WRITER]
        if not self.direct:
            return ["classifier", "embedder", *stages, *self._in_conversations]
        return [*stages, *(["embedder", *self._in_conversations] if self._in_conversations else [])]

    @property
    def _in_conversations(self) -> list[str]:
        return ["contextualizer"] if self.history.has_conversations else []

    def _made(self, name: str) -> Stage:
        stage = self._stage(name)
        # Sometimes a batch of two events is too much at once.
        return replace(stage, max_bytes=self.random.choice([1_500, stage.max_bytes]))

    def _stage(self, name: str) -> Stage:
        match name:
            case "classifier":
                return classifier.stage(_CLASSIFIER)
            case "contextualizer":
                return contextualizer.stage(RemoteRecords(self.records, self.network))  # pyright: ignore[reportArgumentType]
            case "embedder":
                return embedder.stage(ToyEmbedder(self), CacheInMemory())
            case "record_writer":
                return record_writer.stage(RemoteRecords(self.records, self.network))  # pyright: ignore[reportArgumentType]
            case _:
                index = VectorIndex(RemotePoints(self.disk, self.network), SHAPE)
                return vector_writer.stage(index)

    def _start(self, name: str) -> None:
        process = Process(name)
        self.say(f"{name} starts")
        context = process.context
        serving = self.loop.create_task(self._serve(name, process), context=context)
        serving.add_done_callback(self._look_at)

    def _look_at(self, serving: asyncio.Task[None]) -> None:
        if (error := serving.exception()) is not None:
            self.loop.errors.append(error)

    async def _serve(self, name: str, process: Process) -> None:
        stopping = asyncio.Event()
        producer: Any = Producer(self.log, self.network)
        delivery = StageDelivery(self._made(name), producer, PREFIX, stopping, Liveness())
        broker: Any = Broker(process, self._group)
        delivery.subscribe(broker)
        subscription = delivery._subscriber  # pyright: ignore[reportPrivateUsage]
        consumer: Consumer = subscription.consumer
        member = Member(process, name, consumer, stopping)
        self._members.append(member)
        consumer.told()
        max_records = self.random.choice([1, 4, subscription.max_records])
        while not stopping.is_set() and not delivery.failure.done():
            records = await consumer.poll(max_records)
            if records:
                await _handed_over(subscription.handle, records, delivery)
        consumer.leave()
        self._ended(member, delivery)

    def _ended(self, member: Member, delivery: StageDelivery) -> None:
        failure = delivery.failure.exception() if delivery.failure.done() else None
        self.say(f"{member.stage} ends: {failure!r}")
        if failure is not None and not isinstance(failure, Halted):
            self.loop.errors.append(failure)
        self._members.remove(member)
        self.loop.outside(self.random.uniform(0.5, 10), self._start, member.stage)

    def _group(self, group_id: str, topic: str) -> Group:
        if group_id not in self.groups:
            self.groups[group_id] = Group(self.log, self.network, topic)
        return self.groups[group_id]

    # Weather

    def _before(self, process: Process) -> None:
        """Called before each step of a process: between any two of its awaits."""
        weather, happens = self.weather, self.network.happens
        if process.dead or process.paused:
            return
        if happens(weather.kill):
            self._kill(process)
        elif happens(weather.pause):
            self._pause(process)
        elif happens(weather.stop):
            self._ask_to_stop(process)
        elif process.name == _VECTOR_WRITER and happens(weather.power):
            self._cut_power()

    def _kill(self, process: Process) -> None:
        self.say(f"{process.name} is killed")
        process.dead = True
        for member in [m for m in self._members if m.process is process]:
            self._members.remove(member)
            self.loop.outside(SESSION_S, member.consumer.expire)
        self.loop.outside(self.random.uniform(0.5, 20), self._start, process.name)

    def _pause(self, process: Process) -> None:
        for member in [m for m in self._members if m.process is process]:
            self.say(f"{process.name} is paused")
            process.paused = True
            self.loop.outside(SESSION_S, member.consumer.expire)
            self.loop.outside(self.random.uniform(0.1, 60), self._resume, member)

    def _resume(self, member: Member) -> None:
        if member.process.paused and not member.process.dead:
            self.say(f"{member.stage} goes on")
            self.loop.resume(member.process)
            member.consumer.told()

    def _ask_to_stop(self, process: Process) -> None:
        for member in [m for m in self._members if m.process is process]:
            self.say(f"{process.name} is asked to stop")
            member.stopping.set()
            member.consumer.stop()

    def _cut_power(self) -> None:
        self.say("the index loses its power")
        for member in [m for m in self._members if m.stage == _VECTOR_WRITER]:
            self._kill(member.process)
        self.disk.lose_power(self.random.random())

    # Telling

    @property
    def digest(self) -> str:
        """The same for the same seed, on any machine."""
        told = repr((self.loop.steps, self.loop.time(), self.trace, self.random.getstate()))
        return sha256(told.encode()).hexdigest()

    def say(self, what: str) -> None:
        self.trace.append((self.loop.time(), what))

    def told(self) -> str:
        """What happened, for whoever has to find out why."""
        published = [
            f"  {p.at_s:7.2f} s  partition {p.partition}  {_named(p.event)}"
            for p in sorted(self.history.publications, key=lambda p: p.at_s)
        ]
        happened = [f"  {at:7.2f} s  {what}" for at, what in self.trace]
        return "\n".join(
            ["published:", *published, f"{self.weather}", "happened:", *happened[-60:]]
        )


async def _handed_over(handle: Any, records: Sequence[Any], delivery: StageDelivery) -> None:
    """As FastStream hands over a batch: what its handler raises ends nothing by itself."""
    try:
        await handle(records)
    except Exception:
        if not delivery.failure.done():
            raise


def _named(event: Any) -> str:
    if event is None:
        return "what nobody can use"
    version = event.version - EPOCH_MS * 1_000
    yields = " if absent" if getattr(event, "if_absent", False) else ""
    memory = getattr(event, "memory_id", "")
    return f"{event.type} {event.user_id} {memory} +{version}{yields} {event.event_id}"


class ToyEmbedder:
    """A model that makes nothing of some texts, until it is mended."""

    model, dimensions = MODEL, DIMENSIONS

    def __init__(self, world: World) -> None:
        self._world = world

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        return await self._world.network.request(lambda: [self._one(text) for text in texts])

    def _one(self, text: str) -> Embedding:
        if UNEMBEDDABLE in text and not self._world.mended:
            raise Unusable("the model makes nothing of it")
        return Embedding(_direction(text), np.zeros((0, 64), np.float16))

    async def close(self) -> None:
        pass


_CLASSIFIER = HeuristicClassifier()
_direction: Callable[[str], Any] = lru_cache(10_000)(direction)


@contextmanager
def _determined(world: World) -> Generator[None]:
    """Nothing but the seed decides: neither the clock, nor the random numbers of the pauses."""
    before, logs = random_of_the_process.getstate(), structlog.get_config()
    random_of_the_process.seed(world.seed)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with patch.object(tenacity, "time", SimpleNamespace(monotonic=world.loop.time)):
            yield
    finally:
        random_of_the_process.setstate(before)
        structlog.configure(**logs)
