"""Questions over Kafka: ask, and match the answers to whoever waits.

Askers share one answer topic; each listens on one partition of it and says so in its questions. There
is no consumer group: answers of the past interest nobody.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.errors import PipelineError, Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection, started_producer
from pipeline.kafka.records import Record, as_pairs, headers_of, value_of
from schemas.search import ANSWERED as ANSWERS
from schemas.search import Answered, Asked, Failed, ReplyTo
from schemas.topics import ANSWERED, ASKED

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every question carries beside its content."""

    question_id: UUID
    asked_at: datetime
    deadline: datetime
    reply_to: ReplyTo

    def fields(self) -> dict[str, Any]:
        """As keyword arguments of a question."""
        return {name: getattr(self, name) for name in self.__slots__}


class Asking:
    """Asks, waits until the deadline, and tells what went wrong."""

    def __init__(self, connection: KafkaConnection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self._waiting: dict[UUID, asyncio.Future[Answered]] = {}
        self._starting = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._listening: asyncio.Task[None] | None = None
        self._reply_to: ReplyTo | None = None

    async def ask(self, make: Callable[[Envelope], Asked], *, timeout_s: float) -> Answered:
        """The answer to the question that `make` puts into an envelope.

        Raises Refused where the question is wrong, Unavailable where nobody answers in time.
        """
        producer, reply_to = await self._ready()
        now = datetime.now(UTC)
        asked = make(Envelope(uuid4(), now, now + timedelta(seconds=timeout_s), reply_to))
        answer = asyncio.get_running_loop().create_future()
        self._waiting[asked.question_id] = answer
        try:
            await producer.send_and_wait(
                ASKED.under(self._prefix), value_of(asked), headers=as_pairs(headers_of(asked))
            )
            answered = await asyncio.wait_for(answer, timeout_s)
        except TimeoutError as error:
            raise Unavailable(
                f"No answer in {timeout_s:g} s. Is a query consumer running? "
                "`hybrid-memory status` shows it, `hybrid-memory run query` starts one."
            ) from error
        except KafkaError as error:
            raise self._connection.named(error) from error
        finally:
            del self._waiting[asked.question_id]
        if isinstance(answered, Failed):
            raise (Unavailable if answered.retry else Refused)(answered.reason)
        return answered

    async def close(self) -> None:
        """Stops listening; who still waits is told."""
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
        if self._consumer is not None:
            await self._consumer.stop()
        if self._producer is not None:
            await self._producer.stop()
        self._producer = self._reply_to = None
        self._fail_all(Unavailable("The client was closed before the answer came."))

    async def _ready(self) -> tuple[AIOKafkaProducer, ReplyTo]:
        async with self._starting:
            if self._producer is None or self._reply_to is None:
                producer = await started_producer(
                    # A lost question is asked again; waiting for replicas would only make it late.
                    self._connection,
                    linger_ms=0,
                    acks=1,
                    enable_idempotence=False,
                )
                self._producer = producer
                self._reply_to = await self._listen(producer)
            return self._producer, self._reply_to

    async def _listen(self, producer: AIOKafkaProducer) -> ReplyTo:
        topic = ANSWERED.under(self._prefix)
        consumer = AIOKafkaConsumer(**self._connection.options(), auto_offset_reset="latest")
        try:
            await consumer.start()
            cluster: Any = await producer.client.fetch_all_metadata()
            partitions: set[int] | None = cluster.partitions_for_topic(topic)
            if not partitions:
                raise Refused(
                    f"Topic {topic} is not there. Start a stage (`hybrid-memory up`, or "
                    "`hybrid-memory run query`): it makes the topics."
                )
            mine = TopicPartition(topic, random.choice(sorted(partitions)))  # noqa: S311
            consumer.assign([mine])
            await consumer.seek_to_end(mine)
            # Only now is the end known: an answer that comes next is not missed.
            await consumer.position(mine)
        except (KafkaError, OSError) as error:
            await consumer.stop()
            raise self._connection.named(error) from error
        except PipelineError:
            await consumer.stop()
            raise
        self._consumer = consumer
        self._listening = asyncio.create_task(self._hear(consumer))
        return ReplyTo(topic=topic, partition=mine.partition)

    async def _hear(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                record: Any = await consumer.getone()
                self._match(record)
            except KafkaError as error:
                log.warning("answers are late", reason=str(error))
                await asyncio.sleep(0.5)

    def _match(self, record: Record) -> None:
        question_id = _correlation_id(record)
        waiting = self._waiting.get(question_id) if question_id else None
        if waiting is None or waiting.done():
            return
        try:
            waiting.set_result(ANSWERS.validate_json(record.value or b""))
        except ValueError:
            waiting.set_exception(
                Unavailable("The answer cannot be read: is the query consumer of another version?")
            )

    def _fail_all(self, error: PipelineError) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)


def _correlation_id(record: Record) -> UUID | None:
    named: dict[str, object] = dict(record.headers)
    value = named.get("correlation_id")
    try:
        return UUID(value.decode()) if isinstance(value, bytes) else None
    except ValueError:
        return None
