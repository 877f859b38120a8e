"""How much each stage has before it, asked often: what a fault hits.

Clients are kept open, so that asking takes milliseconds; after Kafka was away they are opened anew.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.kafka.admin import Admin
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import topic_partitions
from pipeline.kafka.records import group_of
from schemas.topics import CLASSIFIED, ENRICHED, EVENTS, RECALLED, STORED, TIERED

READS = {
    "classifier": EVENTS,
    "embedder": CLASSIFIED,
    "record_writer": ENRICHED,
    "vector_writer": ENRICHED,
    "contextualizer": STORED,
    "lifecycle": RECALLED,
    "tier_writer": TIERED,
}
_ANSWER_S = 3.0
_AGAIN_S = 0.3


class Watch:
    """The end of each stage's topic, and how far its group has committed."""

    def __init__(self, connection: KafkaConnection, prefix: str) -> None:
        self._connection, self._prefix = connection, prefix
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: Admin | None = None
        self._partitions: dict[str, list[TopicPartition]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def ends(self, stages: Sequence[str]) -> dict[str, int]:
        """Records that were ever in the topic of each stage."""
        return await self._persistently(lambda: self._ends(stages))

    async def committed(self, stages: Sequence[str]) -> dict[str, int]:
        """Records that each stage has done with, for good."""
        return await self._persistently(lambda: self._committed(stages))

    async def lag(self, stages: Sequence[str] = tuple(READS)) -> dict[str, int]:
        """What each stage has before it."""
        done = await self.committed(stages)
        ends = await self.ends(stages)
        return {stage: ends[stage] - done[stage] for stage in stages}

    async def _persistently(self, ask: Any) -> dict[str, int]:
        while True:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return await ask()
            except (KafkaError, OSError):  # TimeoutError is one
                await self._close()
                await asyncio.sleep(_AGAIN_S)

    async def _ends(self, stages: Sequence[str]) -> dict[str, int]:
        if self._consumer is None:
            for topic in {READS[stage].under(self._prefix) for stage in READS}:
                self._partitions[topic] = await topic_partitions(self._connection, topic)
            self._consumer = AIOKafkaConsumer(**self._connection.options())
            await self._consumer.start()
        wanted = {tp for stage in stages for tp in self._of(stage)}
        ends = await self._consumer.end_offsets(wanted)
        return {stage: sum(ends[tp] for tp in self._of(stage)) for stage in stages}

    async def _committed(self, stages: Sequence[str]) -> dict[str, int]:
        if self._admin is None:
            self._admin = Admin(**self._connection.options())
            await self._admin.start()
        sums: dict[str, int] = {}
        for stage in stages:
            offsets: Any = await self._admin.list_consumer_group_offsets(
                group_of(self._prefix, stage)
            )
            sums[stage] = sum(max(0, committed.offset) for committed in offsets.values())
        return sums

    def _of(self, stage: str) -> list[TopicPartition]:
        return self._partitions[READS[stage].under(self._prefix)]

    async def _close(self) -> None:
        consumer, admin = self._consumer, self._admin
        self._consumer = self._admin = None
        closing = [consumer.stop()] if consumer else []
        closing += [admin.close()] if admin else []
        if closing:
            # Whatever comes of it: these clients are broken, and one of them awaits what it cancelled.
            await asyncio.wait(map(asyncio.ensure_future, closing), timeout=_ANSWER_S)
