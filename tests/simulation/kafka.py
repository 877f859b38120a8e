"""Kafka as the stages see it: logs with offsets, consumer groups that rebalance, producers that are late.

The broker keeps what it acknowledged, as three replicas would. What a producer has on its way is one batch
a partition, in order. A group gives its partitions anew when a member comes, goes, or is silent for longer
than a session; who was left out still believes that they are its own, until it hears otherwise.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaTimeoutError

from tests.simulation.loop import OWNER, Process
from tests.simulation.network import Network, settle

SESSION_S = 15.0
REBALANCE_S = 60.0
STALL_S = 90.0
"""Longer than an acknowledgement is waited for."""

Sent = tuple[asyncio.Future[Any], bytes | None, bytes | None, Sequence[tuple[str, bytes]]]


def home(key: bytes | None, partitions: int) -> int:
    """The partition of a record that names none."""
    return crc32(key or b"") % partitions


class Log:
    """All topics, each with the same number of partitions."""

    def __init__(self, network: Network, partitions: int, epoch_ms: int) -> None:
        self.partitions = partitions
        self.consumers: dict[str, list[Consumer]] = defaultdict(list)
        self._network, self._epoch_ms = network, epoch_ms
        self._topics: dict[str, list[list[Any]]] = defaultdict(
            lambda: [[] for _ in range(partitions)]
        )

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Any,
    ) -> None:
        """A record in its place; without a partition its key decides."""
        place = home(key, self.partitions) if partition is None else partition
        log = self._topics[topic][place]
        now_ms = self._epoch_ms + int(self._network.loop.time() * 1_000)
        log.append(
            ConsumerRecord(
                topic, place, len(log), now_ms, 0, key, value, None, 0, 0, tuple(headers)
            )
        )
        for consumer in self.consumers[topic]:
            consumer.news.set()

    def records(self, topic: str) -> list[Any]:
        return [record for log in self._topics[topic] for record in log]

    def read(self, tp: TopicPartition, offset: int, most: int) -> Sequence[Any]:
        return self._topics[tp.topic][tp.partition][offset : offset + most]

    def end(self, tp: TopicPartition) -> int:
        return len(self._topics[tp.topic][tp.partition])


class Producer:
    """An idempotent producer: in order within a partition, and never silently."""

    def __init__(self, log: Log, network: Network) -> None:
        self._log, self._network = log, network
        self._owner = OWNER.get()
        self._queues: dict[TopicPartition, list[Sent]] = defaultdict(list)
        self._busy: set[TopicPartition] = set()

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Any = (),
    ) -> asyncio.Future[Any]:
        place = home(key, self._log.partitions) if partition is None else partition
        tp = TopicPartition(topic, place)
        acknowledged = self._network.loop.create_future()
        self._queues[tp].append((acknowledged, key, value, headers))
        if tp not in self._busy:
            self._busy.add(tp)
            self._network.loop.outside(self._linger_s(), self._leave, tp)
        await asyncio.sleep(0)
        return acknowledged

    def _linger_s(self) -> float:
        stalled = self._network.happens(self._network.weather.late / 3)
        return STALL_S if stalled else self._network.delay_s()

    def _leave(self, tp: TopicPartition) -> None:
        if self._owner is not None and self._owner.dead:
            return
        if self._owner is not None and self._owner.paused:
            self._network.loop.outside(1.0, self._leave, tp)
            return
        batch = self._queues.pop(tp, [])
        self._network.in_flight += 1
        self._network.loop.outside(self._network.delay_s(), self._arrive, tp, batch)

    def _arrive(self, tp: TopicPartition, batch: Sequence[Sent]) -> None:
        weather = self._network.weather
        self._network.in_flight -= 1
        refused = self._network.happens(weather.refuse / 2)
        denied = self._network.happens(weather.deny / 2)
        if not refused:
            for _, key, value, headers in batch:
                self._log.append(tp.topic, tp.partition, key, value, headers)
        result = KafkaTimeoutError() if refused or denied else None
        for acknowledged, *_ in batch:
            self._network.loop.outside(self._network.delay_s(), _acknowledge, acknowledged, result)
        if self._queues[tp]:
            self._network.loop.outside(self._linger_s(), self._leave, tp)
        else:
            self._busy.discard(tp)


def _acknowledge(acknowledged: asyncio.Future[Any], result: Any) -> None:
    settle(acknowledged, result)
    if acknowledged.done() and not acknowledged.cancelled():
        # Whoever gave up waiting looks at it no more.
        acknowledged.exception()


class Group:
    """One consumer group of one topic."""

    def __init__(self, log: Log, network: Network, topic: str) -> None:
        self.topic, self.log, self.network = topic, log, network
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0
        self.members: list[Consumer] = []
        self._ready: set[Consumer] | None = None
        """Who has joined the generation that is being made; None while none is."""

    @property
    def lag(self) -> int:
        tps = self.partitions()
        return sum(self.log.end(tp) - self.committed.get(tp, 0) for tp in tps)

    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in range(self.log.partitions)]

    def join(self, consumer: "Consumer") -> None:
        """The consumer, which holds nothing any more, waits for its part."""
        if consumer not in self.members:
            self.members.append(consumer)
            self._rebalance()
        if self._ready is not None:
            self._ready.add(consumer)
            self._complete()

    def is_stale(self, consumer: "Consumer") -> bool:
        """Whether the consumer has to join again."""
        if consumer not in self.members:
            return True
        return self._ready is not None and consumer not in self._ready

    def leave(self, consumer: "Consumer") -> None:
        if consumer in self.members:
            self.members.remove(consumer)
            self._rebalance()
            self._complete()

    def commit(
        self, consumer: "Consumer", generation: int, offsets: dict[TopicPartition, int]
    ) -> None:
        if consumer not in self.members or generation != self.generation:
            raise CommitFailedError
        self.committed.update(offsets)

    def _rebalance(self) -> None:
        self._ready = set()
        self.network.loop.outside(REBALANCE_S, self._leave_out, self.generation)
        for member in self.members:
            member.told()

    def _leave_out(self, generation: int) -> None:
        if self._ready is not None and generation == self.generation:
            self.members = [member for member in self.members if member in self._ready]
            self._complete()

    def _complete(self) -> None:
        if self._ready is None or not self._ready.issuperset(self.members):
            return
        self.generation += 1
        self._ready = None
        if not self.members:
            return
        shares: dict[Consumer, list[TopicPartition]] = {member: [] for member in self.members}
        for tp in self.partitions():
            shares[self.network.random.choice(self.members)].append(tp)
        for member, share in shares.items():
            member.given(share, self.generation)


class Consumer:
    """One member of a group, as aiokafka's consumer shows itself to a stage."""

    def __init__(self, group: Group, listener: Any, process: Process) -> None:
        self.news = asyncio.Event()
        self.stopped = False
        self._left = False
        self._committing = self._done = 0
        self._group, self._listener, self._process = group, listener, process
        self._positions: dict[TopicPartition, int] = {}
        self._generation = -1
        self._rejoining = False
        group.log.consumers[group.topic].append(self)

    def told(self) -> None:
        """The next heartbeat hears that the group is given its partitions anew."""
        loop = self._group.network.loop
        delay_s = self._group.network.delay_s()
        loop.call_later(delay_s, self._begin_to_rejoin, context=self._process.context)

    def _begin_to_rejoin(self) -> None:
        if not self._left and not self._rejoining and self._group.is_stale(self):
            self._rejoining = True
            asyncio.get_running_loop().create_task(self._rejoin())

    async def _rejoin(self) -> None:
        await self._listener.on_partitions_revoked(self.assignment())
        await asyncio.sleep(self._group.network.delay_s())
        self._rejoining = False
        if not self._left:
            self._group.join(self)

    def given(self, share: Sequence[TopicPartition], generation: int) -> None:
        self._generation = generation
        self._positions = {tp: self._group.committed.get(tp, 0) for tp in share}
        self.news.set()

    async def poll(self, max_records: int) -> Sequence[Any]:
        """Waits for records; up to `max_records`, those of a partition together and in order."""
        while not self.stopped:
            self.news.clear()
            records = await self._fetched(max_records)
            if records:
                return records
            await self.news.wait()
        return ()

    async def _fetched(self, max_records: int) -> Sequence[Any]:
        await asyncio.sleep(self._group.network.delay_s())
        taken: list[Any] = []
        for tp in self._group.network.random.sample(list(self._positions), len(self._positions)):
            position = self._positions[tp]
            some = self._group.log.read(tp, position, max_records - len(taken))
            taken.extend(some)
            self._positions[tp] = position + len(some)
        return taken

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        if tp not in self._positions:
            raise IllegalStateError
        self._positions[tp] = offset
        self.news.set()

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if not self._positions.keys() >= offsets.keys():
            raise IllegalStateError
        generation, network = self._generation, self._group.network
        self._committing += 1
        number = self._committing

        def commit() -> None:
            # One connection: what was sent first arrives first, or not at all.
            if number > self._done:
                self._done = number
                self._group.commit(self, generation, offsets)

        await network.request(commit, failed=KafkaTimeoutError)

    def stop(self) -> None:
        """The next poll returns nothing."""
        self.stopped = True
        self.news.set()

    def leave(self) -> None:
        self._left = True
        self._group.leave(self)

    def expire(self) -> None:
        """What the broker does at the end of a session."""
        if self._process.dead or self._process.paused:
            self._group.leave(self)


class Subscription:
    """What FastStream's subscriber is to the delivery."""

    def __init__(self, consumer: Consumer, max_records: int) -> None:
        self.consumer, self.max_records = consumer, max_records
        self.handle: Callable[[Sequence[Any]], Any] = _nobody

    def __call__(self, handler: Callable[[Sequence[Any]], Any]) -> None:
        self.handle = handler


def _nobody(_: Sequence[Any]) -> None:
    raise AssertionError("nobody has subscribed")


class Broker:
    """What FastStream's broker is to one process of one stage."""

    def __init__(self, process: Process, groups: Callable[[str, str], Group]) -> None:
        self._process, self._groups = process, groups

    def subscriber(
        self, topic: str, *, group_id: str, listener: Any, max_records: int, **_: Any
    ) -> Subscription:
        consumer = Consumer(self._groups(group_id, topic), listener, self._process)
        return Subscription(consumer, max_records)
