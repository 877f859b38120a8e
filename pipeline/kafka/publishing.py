"""Records on their way out; what an operator publishes is acknowledged page by page."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.errors import Unavailable
from pipeline.kafka.connection import (
    PUBLISH_PATIENCE_S,
    KafkaConnection,
    started_producer,
    stopped_producer,
)
from pipeline.kafka.records import Headers, as_pairs, headers_of, key_of, value_of
from schemas.events import Message
from schemas.topics import Topic


class Outgoing(NamedTuple):
    """A record on its way out."""

    topic: Topic
    value: bytes | None
    key: bytes | None
    headers: Headers
    partition: int | None = None


class Publishing:
    """Publishes for an operator."""

    def __init__(
        self, producer: AIOKafkaProducer, connection: KafkaConnection, prefix: str
    ) -> None:
        self._producer = producer
        self._connection, self._prefix = connection, prefix

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> None:
        """Returns when all in-sync replicas have them. Raises Unavailable."""
        await self.send([packed(topic, message) for message in messages])

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Returns when all in-sync replicas have them. Raises Unavailable."""
        try:
            async with asyncio.timeout(PUBLISH_PATIENCE_S):
                await acknowledged(self._producer, self._prefix, records)
        except TimeoutError as error:
            raise Unavailable("Kafka does not acknowledge: is it running?") from error
        except KafkaError as error:
            raise self._connection.named(error) from error


def packed(topic: Topic, message: Message, partition: int | None = None) -> Outgoing:
    """The message as a record, under its own key."""
    headers = as_pairs(headers_of(message))
    return Outgoing(topic, value_of(message), key_of(message), headers, partition)


async def acknowledged(producer: Any, prefix: str, records: Sequence[Outgoing]) -> None:
    """Sends all before it waits for the first; returns when all in-sync replicas have them."""
    sent = [
        await producer.send(
            each.topic.under(prefix),
            each.value,
            key=each.key,
            partition=each.partition,
            headers=each.headers,
        )
        for each in records
    ]
    await asyncio.gather(*sent)


@asynccontextmanager
async def publishing(connection: KafkaConnection, prefix: str) -> AsyncGenerator[Publishing]:
    """Ready to publish. Raises Unavailable."""
    producer = await started_producer(connection)
    try:
        yield Publishing(producer, connection, prefix)
    finally:
        await stopped_producer(producer)
