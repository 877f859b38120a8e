"""How far the readers of the topics are: end offsets less committed ones, and who reads at all."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from pipeline.kafka.admin import Admin, asked
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import stopped_consumer

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True)
class GroupState:
    """One consumer group on the topic it reads."""

    lag: int
    """Records it has not committed yet, over all partitions."""
    members: int
    """Processes that read in it now."""


@dataclass(frozen=True)
class Range:
    """Where a topic begins and ends, by partition."""

    beginning: Offsets
    end: Offsets

    @property
    def records(self) -> int:
        """Offsets that are there; a compacted topic has fewer records."""
        return sum(end - self.beginning.get(tp, 0) for tp, end in self.end.items())


def lag(range_: Range, committed: Offsets) -> int:
    """What is left to read: from the commit, or from the beginning where there was none yet.

    What retention has removed before it was read does not count: nobody can read it any more.
    """
    return sum(
        end - min(end, max(committed.get(tp, -1), range_.beginning.get(tp, 0)))
        for tp, end in range_.end.items()
    )


async def group_states(
    connection: KafkaConnection, reads: Mapping[str, str]
) -> dict[str, GroupState | None]:
    """The state of each group, given the topic it reads; None where its topic is not there.

    Raises Unavailable.
    """
    ranges = await topic_ranges(connection, sorted(set(reads.values())))
    async with asked(connection) as admin:
        members = await _members(admin, list(reads))
        committed = {group: await _committed(admin, group) for group in reads}
    return {
        group: GroupState(lag=lag(ranges[topic], committed[group]), members=members.get(group, 0))
        if topic in ranges
        else None
        for group, topic in reads.items()
    }


async def group_members(connection: KafkaConnection, groups: Sequence[str]) -> dict[str, int]:
    """How many processes read in each group. Raises Unavailable."""
    async with asked(connection) as admin:
        return await _members(admin, groups)


async def topic_ranges(connection: KafkaConnection, topics: Sequence[str]) -> dict[str, Range]:
    """The beginning and end of each topic that is there. Raises Unavailable."""
    async with asked(connection) as admin:
        partitions = await _partitions(admin, topics)
    if not partitions:
        return {}
    every = [tp for all_ in partitions.values() for tp in all_]
    async with asking_offsets(connection, every) as consumer:
        beginning, end = await consumer.beginning_offsets(every), await consumer.end_offsets(every)
    return {
        topic: Range({tp: beginning[tp] for tp in all_}, {tp: end[tp] for tp in all_})
        for topic, all_ in partitions.items()
    }


@asynccontextmanager
async def asking_offsets(
    connection: KafkaConnection, partitions: Sequence[TopicPartition]
) -> AsyncGenerator[AIOKafkaConsumer]:
    """A consumer that is asked where these partitions begin and end, and fetches nothing. Raises Unavailable.

    Kafka answers a connection in turn: what is asked behind a fetch that waits for records waits, too.
    """
    consumer = AIOKafkaConsumer(**connection.options())
    try:
        await consumer.start()
        consumer.assign(partitions)
        consumer.pause(*partitions)
        yield consumer
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await stopped_consumer(consumer)


async def topic_partitions(connection: KafkaConnection, topic: str) -> list[TopicPartition]:
    """The partitions of a topic; none where it is not there, and it is not made by asking.

    Raises Unavailable.
    """
    async with asked(connection) as admin:
        return (await _partitions(admin, [topic])).get(topic, [])


async def _partitions(admin: Admin, topics: Sequence[str]) -> dict[str, list[TopicPartition]]:
    return {
        about["topic"]: [
            TopicPartition(about["topic"], p["partition"]) for p in about["partitions"]
        ]
        for about in await admin.known(topics)
    }


async def _committed(admin: Admin, group: str) -> Offsets:
    try:
        offsets: Any = await admin.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:
        return {}
    return {tp: committed.offset for tp, committed in offsets.items()}


async def _members(admin: Admin, groups: Sequence[str]) -> dict[str, int]:
    """One group a request: aiokafka 0.14 reads an answer about several with the wrong schema."""
    members: dict[str, int] = {}
    for group in groups:
        try:
            answers: Any = await admin.describe_consumer_groups([group])
        except GroupCoordinatorNotAvailableError:
            # A cluster where no group was ever: Kafka makes its offsets topic only now.
            continue
        # (error code, group, state, protocol type, protocol, members, ...)
        members[group] = sum(len(about[5]) for answer in answers for about in answer.groups)
    return members
