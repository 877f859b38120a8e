"""Whoever asks for a stage's partitions does not wait for a neighbour that is away."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from pipeline.errors import Unavailable
from pipeline.kafka.delivery import StageDelivery
from pipeline.liveness import Liveness
from pipeline.stage import Made, Stage
from schemas.topics import EVENTS

TP = TopicPartition("memory.events", 0)


class Subscription:
    """What the broker gives a stage: a consumer that remembers where it was set back to."""

    def __init__(self) -> None:
        self.consumer, self.sought = self, list[int]()

    def subscriber(self, *_: Any, **__: Any) -> "Subscription":
        return self

    def __call__(self, handler: Any) -> None:
        self.handle = handler

    def assignment(self) -> set[TopicPartition]:
        return {TP}

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.sought.append(offset)


async def test_a_batch_that_waits_for_a_neighbour_holds_no_rebalance_up() -> None:
    asked = asyncio.Event()

    async def away(_: Sequence[Any]) -> Sequence[Made]:
        asked.set()
        raise Unavailable("the model is away")

    stage = Stage(name="embedder", reads=EVENTS, writes=None, decode=bytes.decode, react=away)
    stopping, broker, nobody = asyncio.Event(), Subscription(), None
    delivery = StageDelivery(stage, nobody, "memory", stopping, Liveness())  # pyright: ignore[reportArgumentType]
    delivery.subscribe(broker)  # pyright: ignore[reportArgumentType]
    record = ConsumerRecord(TP.topic, 0, 7, 0, 0, None, b"text", None, 0, 4, ())
    taking = asyncio.create_task(broker.handle([record]))
    await asked.wait()
    async with asyncio.timeout(1):
        await delivery.on_partitions_revoked([TP])
    await taking
    assert broker.sought == [7]
    assert not stopping.is_set()
    # Whoever keeps the partition after all waits for the neighbour as before.
    again = asyncio.create_task(broker.handle([record]))
    done, _ = await asyncio.wait([again], timeout=0.3)
    assert not done
    stopping.set()
    await again
