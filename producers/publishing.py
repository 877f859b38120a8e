"""Events -> memory.events: published once Kafka has them on all in-sync replicas.

Many are sent before the first acknowledgement is awaited, and none is taken for published without its own.
"""

import asyncio
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.errors import Refused, Unavailable
from pipeline.kafka.connection import (
    PUBLISH_PATIENCE_S,
    KafkaConnection,
    started_producer,
    stopped_producer,
)
from pipeline.kafka.publishing import acknowledged, packed
from producers.backlog import Backlog
from schemas.events import Event
from schemas.topics import EVENTS

log = structlog.get_logger(__name__)

TOPICS_PATIENCE_S = 15.0
TOPICS_PAUSE_S = 0.2
TELL_AFTER_S = 2.0


class Publisher:
    """Publishes between `start` and `close`; holds back as the backlog says, where there is one."""

    def __init__(self, connection: KafkaConnection, prefix: str, backlog: Backlog | None) -> None:
        self._connection, self._prefix = connection, prefix
        self._topic = EVENTS.under(prefix)
        self._backlog = backlog
        self._producer: AIOKafkaProducer | None = None
        self._was_closed = False

    async def start(self) -> None:
        """Connects, and waits for the topics; where that fails nothing stays open."""
        producer = await started_producer(self._connection)
        try:
            await self._topic_made(producer)
        except BaseException:
            await stopped_producer(producer)
            raise
        self._producer = producer

    async def close(self) -> None:
        """What was sent before is still acknowledged, or given up after a while."""
        producer = self.started()
        try:
            await stopped_producer(producer)
        finally:
            self._producer, self._was_closed = None, True
            if self._backlog is not None:
                self._backlog.close()

    def started(self) -> AIOKafkaProducer:
        """The producer. Raises Refused outside of `start` and `close`."""
        if self._producer is None:
            state = "was closed" if self._was_closed else "is not connected"
            raise Refused(f"The client {state}: use `async with MemoryClient(...) as memory`.")
        return self._producer

    async def admitted(self, wanted: int) -> int:
        """How many of `wanted` events may be published now; waits, or raises, as the backlog says."""
        self.started()
        return wanted if self._backlog is None else await self._backlog.admit(wanted)

    async def publish(self, events: Sequence[tuple[Event, int | None]]) -> None:
        """Publishes events, each to its partition or, with None, to that of its key.

        When it returns, Kafka has them all. Where it raises Unavailable, some may have arrived. How many
        may be published at once `admitted` says.
        """
        try:
            async with asyncio.timeout(PUBLISH_PATIENCE_S):
                outgoing = [packed(EVENTS, event, partition) for event, partition in events]
                await acknowledged(self.started(), self._prefix, outgoing)
        except TimeoutError as error:
            raise Unavailable(
                f"Kafka did not acknowledge within {PUBLISH_PATIENCE_S:g} s. What was sent may still "
                "arrive: repeat it with the same idempotency key or memory id."
            ) from error
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    async def partitions(self) -> int:
        """How many partitions the events' topic has."""
        producer = self.started()
        try:
            return len(await producer.partitions_for(self._topic))
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    async def _topic_made(self, producer: AIOKafkaProducer) -> None:
        """Waits a little for the topic: the first stage to start is making it, perhaps."""
        now = asyncio.get_running_loop().time
        began, is_told = now(), False
        try:
            while self._topic not in (await producer.client.fetch_all_metadata()).topics():
                if now() > began + TOPICS_PATIENCE_S:
                    raise Refused(
                        f"Kafka at {self._connection.bootstrap_servers} has no topic {self._topic}. Any "
                        "stage makes the topics: `hybrid-memory up`, or `hybrid-memory run classifier`."
                    )
                if now() > began + TELL_AFTER_S and not is_told:
                    is_told = True
                    log.warning("waits for a topic", topic=self._topic, most_s=TOPICS_PATIENCE_S)
                await asyncio.sleep(TOPICS_PAUSE_S)
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error
