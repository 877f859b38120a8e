"""Feeds stages from Kafka: at least once, in order, one bad message costing nobody else anything.

    fetch a batch -> decode each -> react -> publish, wait for every ack -> what follows, too -> commit

Commit comes last: a crash repeats work, never loses it. While a neighbour is down the batch is tried
again with growing pauses, and nothing is set aside. What can never work is set aside with its bytes. A
rebalance waits for the batch in flight, so that its new owner begins after it; one that waits for a
neighbour comes back instead, for Kafka waits no longer than a minute. An error we do not know ends the
process with nothing committed.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaMessage
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from pipeline import metrics
from pipeline.errors import Halted, PipelineError, Unavailable, Unusable
from pipeline.kafka.connection import MAX_POLL_INTERVAL_MS, transient
from pipeline.kafka.dead_letters import (
    HALTING_SHARE,
    DeadLetterLimit,
    utc_now,
)
from pipeline.kafka.outbox import Dead, Outbox
from pipeline.kafka.publishing import Outgoing, packed
from pipeline.kafka.reading import event_of
from pipeline.kafka.records import Record, group_of
from pipeline.liveness import Liveness
from pipeline.stage import Made, Stage
from schemas.events import Event, Message
from schemas.topics import Topic

log = structlog.get_logger(__name__)

PATIENCE_S = 120.0
"""How long one batch is tried before the group is shown a sign of life by polling again."""
LONGEST_PAUSE_S = 20.0
WORRYING_SHARE = 0.1
"""Of dead letters among the latest messages: beyond it the stage is degraded."""

CONSUMING: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    # What a publisher has not committed, or has given up, never happened.
    "isolation_level": "read_committed",
    "session_timeout_ms": 15_000,
    "heartbeat_interval_ms": 3_000,
    "rebalance_timeout_ms": 60_000,
    "max_poll_interval_ms": MAX_POLL_INTERVAL_MS,
    "max_partition_fetch_bytes": 4 * 1024 * 1024,
}


class Going(NamedTuple):
    """A message on its way out."""

    outgoing: Outgoing
    of: int | None = None
    """The place of the event that it is all of, and that is set aside where Kafka refuses it. None where it
    is one of several, or follows from a batch: then it falls alone."""


class Stopping(PipelineError):
    """The process is asked to stop, or to give partitions away; the batch comes back to whoever is next."""


class StageDelivery(ConsumerRebalanceListener):
    """One stage's subscription: turns each batch into published events and a commit."""

    def __init__(
        self,
        stage: Stage,
        producer: AIOKafkaProducer,
        prefix: str,
        stopping: asyncio.Event,
        liveness: Liveness,
        *,
        halting_share: float = HALTING_SHARE,
    ) -> None:
        self.stage = stage
        self.name = stage.name
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Set once, when the process has to end because of this stage."""
        self._outbox = Outbox(producer, prefix, stage.name)
        self._prefix = prefix
        self._stopping = stopping
        self._liveness = liveness
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving = asyncio.Event()
        """Set while Kafka waits for us to give partitions away."""
        self._limit = DeadLetterLimit(share=halting_share)
        self._subscriber: Any = None
        self._committed: dict[TopicPartition, int] = {}
        """By assigned partition: where the group is, as far as we have asked or told."""
        self._log = log.bind(stage=stage.name)

    def subscribe(self, broker: KafkaBroker) -> None:
        """Joins the stage's consumer group when the broker starts."""
        self._subscriber = broker.subscriber(
            self.stage.reads.under(self._prefix),
            batch=True,
            group_id=group_of(self._prefix, self.stage.name),
            ack_policy=AckPolicy.MANUAL,
            max_records=self.stage.max_records,
            # Not a linger: the first data ends it. Longer only makes an idle stage late.
            batch_timeout_ms=20,
            listener=self,
            parser=_as_it_is,
            decoder=_records,
            **CONSUMING,
        )
        self._subscriber(self._take)

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """The consumer, once the broker has started."""
        return self._subscriber.consumer

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        revoked: Sequence[TopicPartition],  # noqa: ARG002
    ) -> None:
        """Lets the batch in flight end and commit: the next owner then repeats nothing.

        One that waits for a neighbour waits no longer: Kafka would give us up, and its next owner waits
        as well.
        """
        self._leaving.set()
        try:
            await self._idle.wait()
        finally:
            self._leaving.clear()

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, assigned: Sequence[TopicPartition]
    ) -> None:
        self._committed.clear()
        self._log.info("partitions assigned", partitions=sorted(tp.partition for tp in assigned))

    async def begin(self) -> None:
        """Goes back to where the group has committed: what was polled and not seen is polled again."""
        for tp in self.consumer.assignment():
            committed = await self.consumer.committed(tp)
            if committed is None:
                await self.consumer.seek_to_beginning(tp)
            else:
                self.consumer.seek(tp, committed)

    def halt_at_unreadable(self, error: Exception) -> None:
        """Ends the process with nothing committed: a record is such that the client cannot read past it."""
        if self.failure.done():
            return
        self.failure.set_exception(
            Halted(
                f"{self.name} stopped: {self.stage.reads.under(self._prefix)} holds a record that cannot be "
                f"read at all ({error}). Nothing was lost. It stands behind one of the group's offsets: "
                "find it, delete it with kafka-delete-records, and start again."
            )
        )

    async def _take(self, taken: Sequence[Record]) -> None:
        if self.failure.done():
            return
        self._idle.clear()
        records, later = cut(taken, self.stage.max_bytes)
        try:
            with metrics.BATCH_S.labels(self.name).time():
                await self._deliver(records)
                await self._commit(records)
            self._tell_health()
            # Fetched again by the next poll, which tells Kafka that we are alive.
            self._rewind(later)
        except (Unavailable, Stopping) as error:
            self._rewind(taken)
            self._liveness.troubles[self.name] = str(error)
            self._log.warning("batch comes back", records=len(taken), reason=str(error))
            with suppress(Stopping):
                await self._pause(1.0)
        except asyncio.CancelledError:
            self._rewind(taken)
            raise
        except BaseException as error:
            # Nothing may be committed past this batch, so nothing more is taken.
            self._rewind(taken)
            self.failure.set_exception(error)
            raise
        finally:
            self._idle.set()

    async def _deliver(self, records: Sequence[Record]) -> None:
        usable, dead = self._legible(records)
        results = await self._react([event for _, event in usable]) if usable else []
        dead += [
            Dead(record, str(result))
            for (record, _), result in zip(usable, results, strict=True)
            if isinstance(result, Unusable)
        ]
        self._stop_if_most_fail(dead, used=len(records) - len(dead))
        going = [
            each
            for place, result in enumerate(results)
            for each in self._going(place, usable[place][0], result)
        ]
        failed, alone = await self._publish(going)
        done = [
            (event, result)
            for place, ((_, event), result) in enumerate(zip(usable, results, strict=True))
            if place not in failed and not isinstance(result, Unusable)
        ]
        if failed:
            dead += [Dead(usable[place][0], why) for place, why in failed.items()]
            self._stop_if_most_fail(dead, used=len(done))
        await self._set_aside([*dead, *alone])
        await self._follow(done)
        self._limit.count(failed=len(dead), used=len(done))
        metrics.USED.labels(self.name).inc(len(done))

    def _legible(self, records: Sequence[Record]) -> tuple[list[tuple[Record, Any]], list[Dead]]:
        usable: list[tuple[Record, Any]] = []
        dead: list[Dead] = []
        for record in records:
            try:
                usable.append((record, event_of(record, self.stage.decode)))
            except Unusable as error:
                dead.append(Dead(record, str(error)))
        return usable, dead

    async def _react(self, events: Sequence[Any]) -> list[Made | Unusable]:
        """One result for each event; halves the batch until what is unusable stands alone."""
        try:
            made = await self._patiently(events)
        except Unusable as error:
            if len(events) == 1:
                return [error]
            middle = len(events) // 2
            return await self._react(events[:middle]) + await self._react(events[middle:])
        if len(made) != len(events):
            raise AssertionError(f"{self.stage.name} made {len(made)} of {len(events)} events")
        return list(made)

    async def _patiently(self, events: Sequence[Any]) -> Sequence[Made]:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
            stop=self._patience_ends,
            sleep=self._pause,
            before_sleep=self._say_it_waits,
            reraise=True,
        ):
            with attempt:
                return await self.stage.react(events)
        raise AssertionError("tenacity returns or raises")

    def _patience_ends(self, state: RetryCallState) -> bool:
        asked_to_end = self._stopping.is_set() or self._leaving.is_set()
        return asked_to_end or (state.seconds_since_start or 0) > PATIENCE_S

    async def _pause(self, seconds: float) -> None:
        asked = [asyncio.create_task(each.wait()) for each in (self._stopping, self._leaving)]
        try:
            done, _ = await asyncio.wait(
                asked, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for each in asked:
                each.cancel()
        if done:
            raise Stopping(f"{self.stage.name} was asked to stop while it waited for a neighbour")

    def _say_it_waits(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause_s = round(state.next_action.sleep, 1) if state.next_action else 0.0
        self._liveness.troubles[self.name] = str(error)
        metrics.WAITS.labels(self.name).inc()
        self._log.warning("waiting for a neighbour", reason=str(error), pause_s=pause_s)

    def _tell_health(self) -> None:
        """A batch went through: what is left to worry about is what had to be set aside."""
        if self._limit.failing > WORRYING_SHARE:
            told = f"{self._limit.failing:.0%} of the latest messages went to the dead letters"
            self._liveness.troubles[self.name] = told
        else:
            self._liveness.troubles.pop(self.name, None)

    def _stop_if_most_fail(self, dead: Sequence[Dead], *, used: int) -> None:
        if self._limit.exceeded_by(failed=len(dead), used=used):
            record, reason, _ = dead[-1] if dead else (None, None, None)
            where = f" at {record.topic}/{record.partition}/{record.offset}" if record else ""
            raise Halted(
                f"{self.stage.name} stopped: most of the latest messages could not be used, the last"
                f"{where}: {reason}. Nothing of this batch was set aside. Mend the cause and start it "
                "again; if it is the messages that are bad, start it once with HALTING_SHARE=1, which "
                "sets them aside."
            )

    async def _follow(self, done: Sequence[tuple[Any, Any]]) -> None:
        async with aclosing(self.stage.follow(done)) as pages:
            async for page in pages:
                going = [Going(self._packed(each.topic, each.message, None)) for each in page]
                _, alone = await self._publish(going)
                await self._set_aside(alone)

    def _going(self, place: int, record: Record, result: Made | Unusable) -> Sequence[Going]:
        if isinstance(result, Unusable):
            return ()
        # The same partition from topic to topic keeps the order of one memory's events. What is of other
        # memories goes where their keys belong, and is no fault of the record's.
        several = isinstance(result, tuple)
        topic, made = self.stage.writes, _several(result)
        assert topic is not None or not made, f"{self.name} has no topic to write to"
        partition, of = (None, None) if several else (record.partition, place)
        return [Going(self._packed(topic, each, partition), of) for each in made if topic]

    def _packed(self, topic: Topic, message: Message, partition: int | None) -> Outgoing:
        if isinstance(message, Event):
            hops = {**message.hops, self.stage.name: utc_now()}
            message = message.model_copy(update={"hops": hops})
        return packed(topic, message, partition)

    async def _publish(self, going: Sequence[Going]) -> tuple[dict[int, str], list[Dead]]:
        """What Kafka refuses: by their places the events that all was made of, and messages alone."""
        refused = await self._outbox.publish([each.outgoing for each in going])
        failed = {of: why for n, why in refused.items() if (of := going[n].of) is not None}
        alone = [
            self._outbox.fallen_alone(going[n].outgoing, why)
            for n, why in refused.items()
            if going[n].of is None
        ]
        return failed, alone

    async def _set_aside(self, dead: Sequence[Dead]) -> None:
        if dead:
            await self._outbox.set_aside(dead)
            metrics.SET_ASIDE.labels(self.name).inc(len(dead))

    async def _commit(self, records: Sequence[Record]) -> None:
        consumer = self.consumer
        ours = consumer.assignment()
        offsets = {tp: after for tp, after in _offsets_after(records).items() if tp in ours}
        try:
            if offsets:
                await consumer.commit(offsets)
                self._committed |= offsets
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions went to another consumer, which repeats this batch: that is safe.
            self._log.warning("not committed, the group has moved on", reason=str(error))
        except KafkaError as error:
            if not transient(error):
                raise
            raise Unavailable(f"Kafka did not take the commit: {error}") from error

    async def pass_markers(self) -> None:
        """Commits past offsets without records, after a poll that found none.

        The end of a transaction takes an offset too, and would look like lag for ever.
        """
        if self.failure.done() or not self._idle.is_set():
            # What was polled since has not been done with.
            return
        consumer = self.consumer
        passed: dict[TopicPartition, int] = {}
        try:
            for tp in consumer.assignment():
                if tp not in self._committed:
                    self._committed[tp] = await consumer.committed(tp) or 0
                position = await consumer.position(tp)
                if position > self._committed[tp]:
                    passed[tp] = position
            if passed and self._idle.is_set() and not self.failure.done():
                await consumer.commit(passed)
                self._committed |= passed
        except (KafkaError, IllegalStateError) as error:
            # It is only the look of it: the next empty poll tries again.
            self._log.debug("not committed past the ends of transactions", reason=str(error))

    def _rewind(self, records: Sequence[Record]) -> None:
        """The next poll returns this batch again."""
        consumer: AIOKafkaConsumer | None = self._subscriber.consumer
        if consumer is None:
            return
        assigned = consumer.assignment()
        for tp, offset in _first_offsets(records).items():
            if tp in assigned:
                consumer.seek(tp, offset)


def _several(result: Made) -> Sequence[Message]:
    return result if isinstance(result, tuple) else (result,)


def cut(records: Sequence[Record], max_bytes: int) -> tuple[Sequence[Record], Sequence[Record]]:
    """The first records, of no more than `max_bytes` but at least one, and the rest."""
    size = 0
    for index, record in enumerate(records):
        size += len(record.value or b"")
        if size > max_bytes and index:
            return records[:index], records[index:]
    return records, ()


def _offsets_after(records: Sequence[Record]) -> dict[TopicPartition, int]:
    after: dict[TopicPartition, int] = {}
    for record in records:
        tp = TopicPartition(record.topic, record.partition)
        after[tp] = max(after.get(tp, 0), record.offset + 1)
    return after


def _first_offsets(records: Sequence[Record]) -> dict[TopicPartition, int]:
    first: dict[TopicPartition, int] = {}
    for record in records:
        first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
    return first


async def _as_it_is(records: Any) -> KafkaMessage:
    """Touches no header: one that is null or not UTF-8 would take its whole batch with it."""
    return KafkaMessage(body=b"", raw_message=records, consumer=FAKE_CONSUMER)


async def _records(message: KafkaMessage) -> Any:
    """Leaves decoding to the delivery, which does it message by message."""
    return message.raw_message
