"""Questions over Kafka: ask, and match the answers to whoever waits.

Questions about one user and those of operators have a topic each. Askers share one answer topic; each listens on one partition of it and says so in its questions. There
is no consumer group: answers of the past interest nobody.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.ending import cancelled, within
from pipeline.errors import PipelineError, Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection, started_producer, stopped_producer
from pipeline.kafka.following import stopped_consumer
from pipeline.kafka.records import Record, as_pairs, headers_of, value_of
from schemas.search import ANSWERED as ANSWERS
from schemas.search import Answered, Asked, Failed, OperatorAsked, ReplyTo
from schemas.topics import ANSWERED, ASKED, OPERATOR_ASKED, Topic

log = structlog.get_logger(__name__)

ASKED_TIMES = 3
"""How often one question is asked within its time."""

_CLOSED = "The client was closed before the answer came."

_ANSWERING = {
    ASKED: ("a query consumer", "query"),
    OPERATOR_ASKED: ("an operator desk", "operator_desk"),
}


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
        self._taken: dict[UUID, Topic] = {}
        """Questions that Kafka has, as often as they were asked, and where."""
        self._starting = asyncio.Lock()
        self._asks: tuple[AIOKafkaProducer, ReplyTo] | None = None
        self._open = AsyncExitStack()
        self._closed = False

    async def ask(self, make: Callable[[Envelope], Asked], *, timeout_s: float) -> Answered:
        """The answer to the question that `make` puts into an envelope.

        Raises Refused where the question is wrong, Unavailable where nobody answers in time.
        """
        if self._closed:
            raise Refused("The client was closed: ask another one.")
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        question_id = uuid4()
        self._waiting[question_id] = answer
        try:
            answered = await within(timeout_s, self._answered(question_id, answer, make, timeout_s))
        except TimeoutError as error:
            raise Unavailable(self._late(question_id, timeout_s)) from error
        except KafkaError as error:
            raise self._connection.named(error) from error
        finally:
            self._taken.pop(question_id, None)
            del self._waiting[question_id]
        if isinstance(answered, Failed):
            raise (Unavailable if answered.retry else Refused)(answered.reason)
        return answered

    async def _answered(
        self,
        question_id: UUID,
        answer: asyncio.Future[Answered],
        make: Callable[[Envelope], Asked],
        timeout_s: float,
    ) -> Answered:
        """Asks, and asks again now and then: a question is lost with the process that took it."""
        deadline = datetime.now(UTC) + timedelta(seconds=timeout_s)
        producer, reply_to = await self._ready()
        asked = make(Envelope(question_id, datetime.now(UTC), deadline, reply_to))
        topic, value = topic_of(asked), value_of(asked)
        while not answer.done():
            self._taken.pop(question_id, None)
            await producer.send_and_wait(
                topic.under(self._prefix), value, headers=as_pairs(headers_of(asked))
            )
            self._taken[question_id] = topic
            await asyncio.wait([answer], timeout=timeout_s / ASKED_TIMES)
        return answer.result()

    def _late(self, question_id: UUID, timeout_s: float) -> str:
        """Whom there is no answer from: Kafka, or those who read the questions."""
        topic = self._taken.get(question_id)
        if topic is None:
            return (
                f"Kafka at {self._connection.bootstrap_servers} did not take the question in "
                f"{timeout_s:g} s. Is it running? `hybrid-memory status` shows it."
            )
        who, stage = _ANSWERING[topic]
        return (
            f"No answer in {timeout_s:g} s. Does {who} run, and has it started? "
            "`hybrid-memory status` shows it. On one machine it comes with `hybrid-memory up`; "
            f"where the index is a Qdrant server, `hybrid-memory run {stage}` starts one more."
        )

    async def close(self) -> None:
        """Stops listening, for good; who still waits is told."""
        self._closed = True
        self._fail_all(Unavailable(_CLOSED))
        # What is just being opened is closed, too.
        async with self._starting:
            await self._open.aclose()
            self._asks = None

    async def _ready(self) -> tuple[AIOKafkaProducer, ReplyTo]:
        async with self._starting:
            if self._closed:
                raise Unavailable(_CLOSED)
            if self._asks is None:
                async with AsyncExitStack() as stack:
                    self._asks = await self._start(stack)
                    # Only what came up whole is kept open.
                    self._open = stack.pop_all()
            return self._asks

    async def _start(self, stack: AsyncExitStack) -> tuple[AIOKafkaProducer, ReplyTo]:
        producer = await started_producer(
            # A lost question is asked again; waiting for replicas would only make it late.
            self._connection,
            linger_ms=0,
            acks=1,
            enable_idempotence=False,
        )
        stack.push_async_callback(stopped_producer, producer)
        consumer = AIOKafkaConsumer(**self._connection.options(), auto_offset_reset="latest")
        stack.push_async_callback(stopped_consumer, consumer)
        try:
            mine = await self._listen(consumer, producer)
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error
        hearing = asyncio.create_task(self._hear(consumer))
        stack.push_async_callback(cancelled, hearing)
        return producer, ReplyTo(topic=mine.topic, partition=mine.partition)

    async def _listen(
        self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer
    ) -> TopicPartition:
        topic = ANSWERED.under(self._prefix)
        await consumer.start()
        cluster: Any = await producer.client.fetch_all_metadata()
        partitions: set[int] | None = cluster.partitions_for_topic(topic)
        if not partitions:
            raise Refused(
                f"Topic {topic} is not there. Any stage makes the topics: `hybrid-memory up`, or "
                "`hybrid-memory run classifier`."
            )
        mine = TopicPartition(topic, random.choice(sorted(partitions)))  # noqa: S311
        consumer.assign([mine])
        await consumer.seek_to_end(mine)
        # Only now is the end known: an answer that comes next is not missed.
        await consumer.position(mine)
        return mine

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
                # Who is not let in yet is told there, and never looks at this.
                waiting.exception()


def topic_of(asked: Asked) -> Topic:
    """Where a question is asked: who may search need not be one who may ask about everybody."""
    return OPERATOR_ASKED if isinstance(asked, OperatorAsked) else ASKED


def _correlation_id(record: Record) -> UUID | None:
    named: dict[str, object] = dict(record.headers)
    value = named.get("correlation_id")
    try:
        return UUID(value.decode()) if isinstance(value, bytes) else None
    except ValueError:
        return None
