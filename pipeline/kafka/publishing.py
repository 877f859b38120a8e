"""Events of an operator's, published under their keys; each page is acknowledged before the next."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.errors import Unavailable
from pipeline.kafka.connection import (
    PUBLISH_PATIENCE_S,
    KafkaConnection,
    started_producer,
    stopped_producer,
)
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from schemas.events import Message
from schemas.topics import Topic


class Publishing:
    """Publishes, and counts what was published."""

    def __init__(
        self, producer: AIOKafkaProducer, connection: KafkaConnection, prefix: str
    ) -> None:
        self.published = 0
        self._producer = producer
        self._connection, self._prefix = connection, prefix

    async def publish(self, topic: Topic, messages: Sequence[Message]) -> None:
        """Returns when all in-sync replicas have them. Raises Unavailable."""
        producer: Any = self._producer
        try:
            async with asyncio.timeout(PUBLISH_PATIENCE_S):
                sent = [
                    await producer.send(
                        topic.under(self._prefix),
                        value_of(message),
                        key=key_of(message),
                        headers=as_pairs(headers_of(message)),
                    )
                    for message in messages
                ]
                await asyncio.gather(*sent)
        except TimeoutError as error:
            raise Unavailable("Kafka does not acknowledge: is it running?") from error
        except KafkaError as error:
            raise self._connection.named(error) from error
        self.published += len(messages)


@asynccontextmanager
async def publishing(connection: KafkaConnection, prefix: str) -> AsyncGenerator[Publishing]:
    """Ready to publish. Raises Unavailable."""
    producer = await started_producer(connection)
    try:
        yield Publishing(producer, connection, prefix)
    finally:
        await stopped_producer(producer)
