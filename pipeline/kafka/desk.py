"""Answers questions over Kafka: many at a time, each by its deadline, each with some answer.

Questions are committed in the background, not when they are answered: one that is lost with its process
is asked again by its asker, who knows the deadline. Serial answering with a commit each would be twelve
times slower.

Of one user a share is answered at a time, and none for longer than somebody waits for the answer.
"""

import asyncio
import time
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaMessage
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import metrics
from pipeline.domain.telling import told
from pipeline.errors import PipelineError, Unavailable
from pipeline.kafka.dead_letters import utc_now
from pipeline.kafka.delivery import CONSUMING
from pipeline.kafka.records import Record, as_pairs, group_of, headers_of, value_of
from pipeline.kafka.telling import Telling
from pipeline.kafka.turns import Turns
from pipeline.stage import Desk
from schemas.search import ASKED, Answered, Asked, Failed, ReplyTo, UserQuestion
from schemas.topics import ANSWERED

log = structlog.get_logger(__name__)

MOST_UNDER_WAY = 1_024
"""Questions that are answered or wait for their turn; the others wait in Kafka."""
MOST_OF_A_USER = 256
"""Of one user: an asker beyond it is told at once."""


class _Sender(BaseModel):
    """What is needed to answer a question that cannot be read otherwise."""

    model_config = ConfigDict(extra="ignore")

    question_id: UUID
    reply_to: ReplyTo


class DeskDelivery:
    """One desk's subscription: turns each question into one answer on its asker's partition."""

    def __init__(
        self, desk: Desk, producer: AIOKafkaProducer, prefix: str, telling: Telling | None = None
    ) -> None:
        self.desk = desk
        self.name = desk.name
        self._subscriber: Any = None
        self._producer = producer
        self._prefix = prefix
        self._telling = telling
        self.turns = Turns(desk.max_workers, desk.workers_a_user, MOST_OF_A_USER)
        self._under_way: set[UUID] = set()
        self._log = log.bind(stage=desk.name)

    def subscribe(self, broker: KafkaBroker) -> None:
        """Joins the desk's consumer group when the broker starts."""
        self._subscriber = broker.subscriber(
            self.desk.reads.under(self._prefix),
            group_id=group_of(self._prefix, self.desk.name),
            ack_policy=AckPolicy.ACK_FIRST,
            max_workers=MOST_UNDER_WAY,
            parser=_as_it_is,
            decoder=_record,
            **CONSUMING,
        )
        self._subscriber(self.take)

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """The consumer, once the broker has started."""
        return self._subscriber.consumer

    async def take(self, record: Record) -> None:
        """Answers one question, as Kafka has it."""
        value = record.value or b""
        try:
            sender = _Sender.model_validate_json(value)
        except ValidationError as error:
            self._log.warning("nobody to answer", reason=told(error), offset=record.offset)
            return
        if not self._may_reply_to(sender.reply_to):
            self._log.warning("not an answer topic", topic=sender.reply_to.topic)
            return
        if sender.question_id in self._under_way:
            # Its asker grew impatient: there will be an answer, and one is enough.
            return
        self._under_way.add(sender.question_id)
        try:
            await self._answer_to(sender, value)
        finally:
            self._under_way.discard(sender.question_id)

    async def _answer_to(self, sender: _Sender, value: bytes) -> None:
        asked, answered = await self._answer(sender.question_id, value)
        await self._reply(sender, answered)
        if self._telling is not None and asked is not None and answered is not None:
            self._telling.tell(self.desk.following(asked, answered))

    def _may_reply_to(self, reply_to: ReplyTo) -> bool:
        """Answers go to answer topics: a question must not make us publish into the stream."""
        return reply_to.topic == ANSWERED.under(self._prefix)

    async def _answer(
        self, question_id: UUID, value: bytes
    ) -> tuple[Asked | None, Answered | None]:
        began = time.perf_counter()
        asked = None
        try:
            asked = ASKED.validate_json(value)
            answered = await self._in_time(asked)
        except ValidationError as error:
            answered = Failed(question_id=question_id, reason=told(error), retry=False)
        except PipelineError as error:
            retry = isinstance(error, Unavailable)
            answered = Failed(question_id=question_id, reason=str(error), retry=retry)
        except Exception:
            # A bug here must neither silence the asker nor end the desk for all others.
            self._log.exception("question failed", question_id=str(question_id))
            answered = Failed(
                question_id=question_id,
                reason=f"The {self.name} consumer failed on this question; its log says why.",
                retry=False,
            )
        if answered is None:
            self._log.info("too late to answer", question_id=str(question_id))
            return asked, None
        took_ms = (time.perf_counter() - began) * 1_000
        metrics.ANSWERS.labels(type(answered).__name__).inc()
        metrics.ANSWER_S.observe(took_ms / 1_000)
        return asked, answered.model_copy(update={"took_ms": took_ms})

    async def _in_time(self, asked: Asked) -> Answered | None:
        """The answer, when it is its turn; None where nobody waits for it any more."""
        # An operator's is finished: what it has begun to change must not be left halfway.
        user_id = asked.user_id if isinstance(asked, UserQuestion) else None
        left_s = (asked.deadline - utc_now()).total_seconds() if user_id is not None else None
        limit = asyncio.timeout(left_s)
        try:
            async with limit, self.turns.of(user_id):
                return None if expired(asked, utc_now()) else await self.desk.answer(asked)
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    async def _reply(self, sender: _Sender, answered: Answered | None) -> None:
        if answered is None:
            return
        try:
            await self._send(sender, answered)
        except MessageSizeTooLargeError:
            await self._send(
                sender,
                Failed(
                    question_id=sender.question_id,
                    reason="The answer is larger than Kafka takes: ask for fewer (limit).",
                    retry=False,
                ),
            )
        except (KafkaError, AssertionError) as error:
            # aiokafka asserts that the partition exists.
            self._log.warning("answer not delivered", reason=str(error))

    async def _send(self, sender: _Sender, answered: Answered) -> None:
        await self._producer.send_and_wait(
            sender.reply_to.topic,
            value_of(answered),
            partition=sender.reply_to.partition,
            headers=as_pairs({**headers_of(answered), "correlation_id": str(sender.question_id)}),
        )


def expired(asked: Asked, now: datetime) -> bool:
    """Whether nobody waits for the answer any more."""
    return now >= asked.deadline


async def _as_it_is(record: Any) -> KafkaMessage:
    return KafkaMessage(body=b"", raw_message=record, consumer=FAKE_CONSUMER)


async def _record(message: KafkaMessage) -> Any:
    return message.raw_message
