"""One stage behind its real delivery, fed with anything; no weather, so that all that happens is the input."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from pipeline.kafka.dead_letters import DeadLetterLimit
from pipeline.kafka.delivery import StageDelivery
from pipeline.liveness import Liveness
from pipeline.stage import Stage
from schemas.topics import DEAD
from tests.simulation.kafka import Broker, Group, Log, Producer
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.weather import Weather

PREFIX = "memory"
NOW_MS = 1_773_480_414_000
"""When the golden messages were published."""


class Line:
    """The topics around one stage."""

    def __init__(self, loop: VirtualLoop, network: Network, stage: Stage) -> None:
        self._loop, self._network, self._stage = loop, network, stage
        self.log = Log(network, 1, NOW_MS)
        self._bad_by_design = False
        self.group = Group(self.log, network, stage.reads.under(PREFIX))

    def feed(self, values: Sequence[bytes | None]) -> None:
        """Appends the values as records with a key of their own, and lets the stage take them all.

        Raises whatever ended the stage, or Stuck where it does not get through.
        """
        for number, value in enumerate(values):
            key = f"{number}".encode()
            self.log.append(self._stage.reads.under(PREFIX), 0, key, value, [("n", key)])
        self._bad_by_design = len(values) > 1
        self._loop.run(self._work(), within_s=10_000, steps=400 * len(values) + 10_000)

    async def _work(self) -> None:
        process = Process(self._stage.name)
        producer: Any = Producer(self.log, self._network)
        delivery = StageDelivery(self._stage, producer, PREFIX, asyncio.Event(), Liveness())
        if self._bad_by_design:
            # How many are too many is another test's.
            delivery._limit = DeadLetterLimit(share=1.0)  # pyright: ignore[reportPrivateUsage]
        broker: Any = Broker(process, self._only_group)
        delivery.subscribe(broker)
        subscription = delivery._subscriber  # pyright: ignore[reportPrivateUsage]
        subscription.consumer.told()
        while self.group.lag:
            await subscription.handle(await subscription.consumer.poll(subscription.max_records))
        subscription.consumer.leave()

    def _only_group(self, _: str, __: str) -> Group:
        return self.group

    def taken(self) -> list[Any]:
        """What the stage has read: what it was fed with, and what it said behind that itself."""
        return self.log.records(self._stage.reads.under(PREFIX))

    def made(self) -> list[Any]:
        """What came out."""
        topic = self._stage.writes
        return self.log.records(topic.under(PREFIX)) if topic else []

    def dead(self) -> list[Any]:
        """What was set aside."""
        return self.log.records(DEAD.under(PREFIX))


@contextmanager
def quiet_loop(seed: int) -> Generator[tuple[VirtualLoop, Network]]:
    """A loop in virtual time, on which nothing goes wrong by itself."""
    random = Random(seed)
    loop = VirtualLoop(_calm, lambda: 0.0)
    with loop.running():
        yield loop, Network(loop, random, Weather())


def _calm(_: Process) -> None:
    pass
