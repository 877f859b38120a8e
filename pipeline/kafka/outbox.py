"""What a stage lets go of: published in order, acknowledged before anything is committed.

What Kafka refuses for its size is told one by one, so that it costs nothing else of its batch. What is set
aside is cut until Kafka takes it: a record that Kafka has kept for others, compressed, can be far larger
than what it takes from us.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from pipeline.errors import Unavailable
from pipeline.kafka.connection import PUBLISH_PATIENCE_S, transient
from pipeline.kafka.dead_letters import STUB, WHOLE, Most, dead_headers, kept_of, notice, utc_now
from pipeline.kafka.publishing import Outgoing
from pipeline.kafka.records import Record, as_pairs, headers_of, value_of
from schemas.topics import DEAD, STORED

log = structlog.get_logger(__name__)

ENVELOPE_BYTES = 4_096
"""What a record's key and headers may take beside its value."""
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Dead(NamedTuple):
    """A record that is set aside."""

    record: Record
    reason: str
    told: bool = True
    """Whether whoever waits for its event hears of it."""


class Outbox:
    """The producer of one stage."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str, stage: str) -> None:
        self._producer: Any = producer
        self._prefix, self._stage = prefix, stage
        self._log = log.bind(stage=stage)

    async def publish(self, outgoing: Sequence[Outgoing]) -> Mapping[int, str]:
        """Returns when Kafka has them: by their places, why it refuses those that are too large.

        Raises Unavailable.
        """
        large = {place: why for place, each in enumerate(outgoing) if (why := self._beyond(each))}
        fitting = [place for place in range(len(outgoing)) if place not in large]
        for place in await self._sent([outgoing[place] for place in fitting]):
            each = outgoing[fitting[place]]
            large[fitting[place]] = (
                f"Kafka refuses what {self._stage} made of it, {len(each.value or b'')} bytes: more than "
                f"{each.topic.under(self._prefix)} takes (max.message.bytes)"
            )
        return large

    async def set_aside(self, dead: Sequence[Dead]) -> None:
        """Returns when Kafka has them, with as much of each as it takes. Raises Unavailable."""
        now = utc_now()
        for record, reason, _ in dead:
            self._log.error(
                "set aside",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=reason[:200],
            )
        for most in (WHOLE, STUB):
            letters = [(each, part) for each in dead for part in self._letter(each, most, now)]
            refused = await self._sent([part for _, part in letters])
            dead = [each for each in dead if any(letters[place][0] is each for place in refused)]
        if dead:
            raise Unavailable(
                f"Kafka takes not even a few bytes in {DEAD.under(self._prefix)} or "
                f"{STORED.under(self._prefix)}: raise max.message.bytes of these topics"
            )

    def fallen_alone(self, outgoing: Outgoing, reason: str) -> Dead:
        """Of a message of ours that belongs to no record that was read: its letter goes where it was to go."""
        # Its event is stored: nobody who waits for it has lost anything.
        topic, key, value = outgoing.topic.under(self._prefix), outgoing.key, outgoing.value
        record: Any = ConsumerRecord(
            topic, -1, -1, 0, 0, key, value, None, 0, 0, tuple(outgoing.headers)
        )
        return Dead(record, reason, told=False)

    def _beyond(self, outgoing: Outgoing) -> str | None:
        size = len(outgoing.value or b"")
        if size <= outgoing.topic.max_message_bytes - ENVELOPE_BYTES:
            return None
        return f"{self._stage} made {size} bytes of it, too large for Kafka"

    def _letter(self, dead: Dead, most: Most, now: datetime) -> Sequence[Outgoing]:
        """The letter, and the notice of it."""
        record, name = dead.record, self._stage
        kept = kept_of(record, most)
        reason = f"{kept.told}{dead.reason}"[: most.reason_chars]
        headers = dead_headers(record, stage=name, reason=reason, now=now, kept=kept)
        letter = Outgoing(DEAD, kept.value, kept.key, headers)
        news = notice(record, stage=name, reason=reason, now=now) if dead.told else None
        if news is None:
            return [letter]
        return [letter, Outgoing(STORED, value_of(news), kept.key, as_pairs(headers_of(news)))]

    async def _sent(self, outgoing: Sequence[Outgoing]) -> Sequence[int]:
        """Publishes in order, then waits for every acknowledgement. The places of what was too large."""
        try:
            async with asyncio.timeout(PUBLISH_PATIENCE_S):
                sent = [await self._send(each) for each in outgoing]
                try:
                    await asyncio.gather(*sent)
                except _TOO_LARGE:
                    return await self._refused(outgoing, sent)
        except TimeoutError as error:
            raise Unavailable("Kafka does not acknowledge: is it running?") from error
        except KafkaError as error:
            if not transient(error):
                raise
            raise Unavailable(f"Kafka did not take what {self._stage} made: {error}") from error
        return ()

    async def _refused(
        self, outgoing: Sequence[Outgoing], sent: Sequence[asyncio.Future[Any]]
    ) -> Sequence[int]:
        """Those that Kafka refuses alone, too: it refuses what travels together as one."""
        results = await asyncio.gather(*sent, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, _TOO_LARGE):
                raise result
        refused: list[int] = []
        for place, result in enumerate(results):
            if isinstance(result, _TOO_LARGE):
                try:
                    await (await self._send(outgoing[place]))
                except _TOO_LARGE:
                    refused.append(place)
        return refused

    async def _send(self, outgoing: Outgoing) -> asyncio.Future[Any]:
        try:
            return await self._producer.send(
                outgoing.topic.under(self._prefix),
                outgoing.value,
                key=outgoing.key,
                partition=outgoing.partition,
                headers=outgoing.headers,
            )
        except _TOO_LARGE as error:
            # Refused before it has left: told like what Kafka itself refuses.
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused
