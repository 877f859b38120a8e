"""Whether consumer groups have read a topic as far as it went a moment ago."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from pipeline.errors import Refused
from pipeline.kafka.admin import Admin, asked
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import stopped_consumer
from pipeline.kafka.lag import asking_offsets, topic_partitions
from pipeline.kafka.records import group_of
from schemas.topics import Topic

POLL_INTERVAL_S = 0.1


class GroupReaders:
    """Groups that read one topic."""

    def __init__(
        self,
        admin: Admin,
        consumer: AIOKafkaConsumer,
        connection: KafkaConnection,
        partitions: Sequence[TopicPartition],
        groups: Sequence[str],
        patience_s: float,
    ) -> None:
        self._admin, self._consumer, self._connection = admin, consumer, connection
        self._partitions, self._groups = partitions, groups
        self._patience_s = patience_s
        self._stuck = False

    async def caught_up(self) -> bool:
        """Waits until every group has committed what the topic holds now.

        False where a group got no further in `patience_s`; from then on nothing is waited for, until it
        does. Raises Unavailable.
        """
        try:
            return await self._wait(await self._consumer.end_offsets(self._partitions))
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    async def behind(self) -> int:
        """Records of the topic that they have not committed yet, over all groups. Raises Unavailable."""
        try:
            begins = await self._consumer.beginning_offsets(self._partitions)
            return await self._left(begins, await self._consumer.end_offsets(self._partitions))
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    async def _wait(self, ends: dict[TopicPartition, int]) -> bool:
        begins: dict[TopicPartition, int] = await self._consumer.beginning_offsets(self._partitions)
        left, since = None, time.monotonic()
        while now_left := await self._left(begins, ends):
            if now_left != left:
                left, since = now_left, time.monotonic()
            if self._stuck or time.monotonic() - since >= self._patience_s:
                self._stuck = True
                return False
            await asyncio.sleep(POLL_INTERVAL_S)
        self._stuck = False
        return True

    async def _left(
        self, begins: dict[TopicPartition, int], ends: dict[TopicPartition, int]
    ) -> int:
        left = 0
        for group in self._groups:
            committed = await self._committed(group)
            for tp, end in ends.items():
                left += max(0, end - max(committed.get(tp, 0), begins[tp]))
        return left

    async def _committed(self, group: str) -> dict[TopicPartition, int]:
        try:
            offsets: Any = await self._admin.list_consumer_group_offsets(group)
        except GroupCoordinatorNotAvailableError:
            return {}
        return {tp: committed.offset for tp, committed in offsets.items()}


def stage_readers(
    connection: KafkaConnection, prefix: str, topic: Topic, *stages: str, patience_s: float
) -> AbstractAsyncContextManager[GroupReaders]:
    """The stages that read `topic`, as `group_readers`."""
    groups = [group_of(prefix, stage) for stage in stages]
    return group_readers(connection, topic.under(prefix), groups, patience_s=patience_s)


@asynccontextmanager
async def group_readers(
    connection: KafkaConnection, topic: str, groups: Sequence[str], *, patience_s: float
) -> AsyncGenerator[GroupReaders]:
    """The groups that read `topic`. Raises Unavailable, and Refused where the topic is not there."""
    partitions = await topic_partitions(connection, topic)
    if not partitions:
        raise Refused(f"Topic {topic} is not there. `hybrid-memory up` or a stage makes it.")
    async with asked(connection) as admin, asking_offsets(connection, partitions) as consumer:
        yield GroupReaders(admin, consumer, connection, partitions, groups, patience_s)


async def read_so_far(
    connection: KafkaConnection, topic: str, group: str
) -> dict[TopicPartition, int]:
    """Where the group reads on, by partition; 0 where it has read nothing. Raises Unavailable."""
    partitions = await topic_partitions(connection, topic)
    async with _of_group(connection, group, partitions) as consumer:
        return {tp: await consumer.committed(tp) or 0 for tp in partitions}


async def skip_to(
    connection: KafkaConnection, group: str, offsets: Mapping[TopicPartition, int]
) -> None:
    """Has a group that nobody is in read on at `offsets`, where it is not further. Raises Unavailable."""
    async with _of_group(connection, group, list(offsets)) as consumer:
        forward = {
            tp: offset
            for tp, offset in offsets.items()
            if offset > (await consumer.committed(tp) or 0)
        }
        if forward:
            await consumer.commit(forward)


@asynccontextmanager
async def _of_group(
    connection: KafkaConnection, group: str, partitions: Sequence[TopicPartition]
) -> AsyncGenerator[AIOKafkaConsumer]:
    """A consumer that speaks for the group without being in it."""
    consumer = AIOKafkaConsumer(**connection.options(), group_id=group, enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign(partitions)
        yield consumer
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await stopped_consumer(consumer)
