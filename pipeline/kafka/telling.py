"""What follows from answers, told in the background: as much as Kafka takes, and never at an answer's cost.

It may be lost: with the process, or because Kafka is slower than the questions are. Then it is dropped,
and counted, and the desk answers on as if nothing were.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline import metrics
from pipeline.ending import cancelled
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from schemas.events import Message
from schemas.topics import Topic

log = structlog.get_logger(__name__)

MOST_WAITING = 1_000
"""Messages that may wait for Kafka."""
_DRAINING_S = 2.0
"""How long a stop waits for them."""


class Telling:
    """Publishes what it is given, in order, when it gets to it."""

    def __init__(self, producer: AIOKafkaProducer, topic: Topic, prefix: str) -> None:
        self._producer = producer
        self._topic, self._name = topic, topic.under(prefix)
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(MOST_WAITING)
        self._publishing: asyncio.Task[None] | None = None

    def tell(self, messages: Iterable[Message]) -> None:
        """Takes messages along, or drops them where too many wait already."""
        for message in messages:
            try:
                self._waiting.put_nowait(message)
            except asyncio.QueueFull:
                metrics.TOLD.labels(self._topic.name, "dropped").inc()
        if self._publishing is None and not self._waiting.empty():
            self._publishing = asyncio.create_task(self._publish())

    async def close(self) -> None:
        """Waits a moment for what is waiting, and drops the rest."""
        if self._publishing is None:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._waiting.join(), _DRAINING_S)
        await cancelled(self._publishing)
        metrics.TOLD.labels(self._topic.name, "dropped").inc(self._waiting.qsize())

    async def _publish(self) -> None:
        while True:
            message = await self._waiting.get()
            try:
                await self._send(message)
            except (KafkaError, OSError) as error:
                metrics.TOLD.labels(self._topic.name, "dropped").inc()
                log.debug("not told", topic=self._name, reason=str(error))
            else:
                metrics.TOLD.labels(self._topic.name, "told").inc()
            finally:
                self._waiting.task_done()

    async def _send(self, message: Message) -> None:
        # Into the producer's batch, without waiting for its acknowledgement.
        await self._producer.send(
            self._name,
            value_of(message),
            key=key_of(message),
            headers=as_pairs(headers_of(message)),
        )
