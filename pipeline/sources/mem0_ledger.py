"""What was seen in Mem0, and the events that follow from it: kept together, in one Kafka transaction.

Whoever reads what was committed sees both or neither, so a poller that dies at any point repeats nothing
and loses nothing. All pollers of one prefix have the same transactional id: the one that starts last fences
off the others, and waits for what they had begun to be committed or aborted before it reads the ledger.

Until an open transaction of a dead poller ends, readers of what was committed wait behind it: it ends when
the next poller starts, or after TRANSACTION_S.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    UnknownError,
    kafka_errors,
)

from pipeline.errors import Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection, started_producer, stopped_producer
from pipeline.kafka.following import stopped_consumer
from pipeline.kafka.lag import topic_partitions
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from pipeline.sources.mem0 import Change, kept_before
from schemas.events import Message
from schemas.mem0 import KEPT, Mem0CycleEnded, Mem0Seen
from schemas.topics import EVENTS, MEM0_CYCLES, MEM0_SEEN, Topic

TRANSACTION_S = 30.0
"""After so long Kafka aborts a transaction whose poller is silent."""
PATIENCE_S = 20.0
"""How long a transaction is tried before this session is given up."""
DROPPED = 500
"""Memories forgotten in one transaction: any number of them could take longer than its time."""
READ_PATIENCE_S = 60.0
TAIL = 20
"""Records from the end of a partition among which the last cycle is."""


# PRODUCER_FENCED: Kafka says so to whom another one has taken over from. aiokafka 0.14 only knows its
# older name, takes this one for unknown, and would wait for an answer that has come.
kafka_errors.setdefault(90, InvalidProducerEpoch)


class Ledger:
    """The book of one poller; one that another poller has fenced off keeps nothing any more."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        connection: KafkaConnection,
        prefix: str,
        seen: dict[str, Mem0Seen],
        last: Mem0CycleEnded | None,
    ) -> None:
        self.seen, self.last = seen, last
        self._producer: Any = producer
        self._connection, self._prefix = connection, prefix

    async def keep(self, changes: Sequence[Change], ended: Mem0CycleEnded | None = None) -> None:
        """Publishes the events and what is now known. Raises Unavailable, Refused.

        After either nothing is known of whether it was kept: open the ledger again.
        """
        records = [self._event(event) for change in changes for event in change.events]
        records += [
            self._record(MEM0_SEEN, change.seen.memory_id, change.seen) for change in changes
        ]
        if ended is not None:
            records.append(self._record(MEM0_CYCLES, ended.project_id, ended))
        await self._commit(records)
        self.last = ended or self.last

    async def drop(self, memory_ids: Sequence[str]) -> None:
        """Forgets what nobody will ask for any more. Raises as `keep` does."""
        for start in range(0, len(memory_ids), DROPPED):
            some = memory_ids[start : start + DROPPED]
            await self._commit([self._record(MEM0_SEEN, one, None) for one in some])
            for one in some:
                del self.seen[one]

    def _event(self, event: Message) -> dict[str, Any]:
        return {
            "topic": EVENTS.under(self._prefix),
            "key": key_of(event),
            "value": value_of(event),
            "headers": as_pairs(headers_of(event)),
        }

    def _record(self, topic: Topic, key: str, message: Message | None) -> dict[str, Any]:
        return {
            "topic": topic.under(self._prefix),
            "key": key.encode(),
            "value": None if message is None else value_of(message),
            "headers": [] if message is None else as_pairs(headers_of(message)),
        }

    async def _commit(self, records: Sequence[Mapping[str, Any]]) -> None:
        began = time.monotonic()
        try:
            await self._transacted(records)
        except (ProducerFenced, InvalidProducerEpoch) as error:
            if time.monotonic() - began > PATIENCE_S / 2:
                # Kafka says the same of a transaction that took too long.
                raise Unavailable("Kafka ended a transaction that took too long.") from error
            raise Refused(
                "Another poller has taken over: there is one at a time. Nothing was published twice. "
                "Let that one run, or stop it and start this one again."
            ) from error
        except UnknownError as error:
            # So a broker may answer one who was taken over, too. Opening anew would fence the successor.
            raise Refused(
                "Kafka ended a transaction and does not say why: another poller may have taken over. Nothing "
                "was published twice. See that one runs, and start this one again if none does."
            ) from error
        except TimeoutError as error:
            raise Unavailable("Kafka does not acknowledge a transaction: is it running?") from error
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    async def _transacted(self, records: Sequence[Mapping[str, Any]]) -> None:
        """One transaction. What fails is not aborted here: whoever opens the ledger next does that."""
        # When another one takes over, aiokafka's sender ends, and who waits for it would wait for ever.
        sending: asyncio.Task[None] = self._producer._sender.sender_task
        work = asyncio.create_task(self._send(records))
        try:
            await asyncio.wait(
                [work, sending], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                work.result()
                return
            if sending.done():
                _raise_what_kafka_said(sending)
                raise Unavailable("Kafka's connection ended in the middle of a transaction.")
            raise TimeoutError
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def _send(self, records: Sequence[Mapping[str, Any]]) -> None:
        await self._producer.begin_transaction()
        sent = [await self._producer.send(**record) for record in records]
        await asyncio.gather(*sent)
        await self._producer.commit_transaction()


def _raise_what_kafka_said(sending: "asyncio.Task[None]") -> None:
    """aiokafka puts what it did not expect behind an error of its own."""
    try:
        sending.result()
    except KafkaError as error:
        raise (error.__cause__ if isinstance(error.__cause__, KafkaError) else error) from error


@asynccontextmanager
async def opened(connection: KafkaConnection, prefix: str) -> AsyncGenerator[Ledger]:
    """The ledger as its last owner left it; that one can write no more. Raises Unavailable, Refused."""
    # Its start asks for the transactional id: what its last owner had begun has ended after that.
    producer = await started_producer(
        connection,
        transactional_id=f"{prefix}.mem0",
        transaction_timeout_ms=int(TRANSACTION_S * 1_000),
    )
    try:
        kept = (await _read(connection, MEM0_SEEN.under(prefix))).values()
        rows = [row for row in map(KEPT.validate_json, kept) if isinstance(row, Mem0Seen)]
        cycles = await _read(connection, MEM0_CYCLES.under(prefix))
        seen = {row.memory_id: kept_before(row) for row in rows}
        yield Ledger(producer, connection, prefix, seen, latest(cycles.values()))
    finally:
        await stopped_producer(producer)


async def last_cycle(connection: KafkaConnection, prefix: str) -> Mem0CycleEnded | None:
    """The cycle that ended last; None where none did yet. Raises Unavailable."""
    topic = MEM0_CYCLES.under(prefix)
    if not await topic_partitions(connection, topic):
        return None
    return latest((await _read(connection, topic, tail=TAIL)).values())


def latest(cycles: Iterable[bytes]) -> Mem0CycleEnded | None:
    """Of all projects the cycle that began last."""
    read = [one for one in map(KEPT.validate_json, cycles) if isinstance(one, Mem0CycleEnded)]
    return max(read, key=lambda cycle: cycle.started_at, default=None)


async def _read(
    connection: KafkaConnection, topic: str, *, tail: int | None = None
) -> dict[bytes, bytes]:
    """The newest value of each key, of what was committed; of the last `tail` records where given."""
    partitions = await topic_partitions(connection, topic)
    consumer = AIOKafkaConsumer(
        **connection.options(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        # Placing oneself may come too late: then at the beginning, never at the end.
        auto_offset_reset="earliest",
    )
    try:
        await consumer.start()
        consumer.assign(partitions)
        async with asyncio.timeout(READ_PATIENCE_S) as patience:
            return await _newest(consumer, partitions, tail, patience)
    except TimeoutError as error:
        raise Unavailable(f"Topic {topic} could not be read to its end: is Kafka well?") from error
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await stopped_consumer(consumer)


async def _newest(
    consumer: AIOKafkaConsumer,
    partitions: Sequence[TopicPartition],
    tail: int | None,
    patience: asyncio.Timeout,
) -> dict[bytes, bytes]:
    ends = await consumer.end_offsets(partitions)
    begins = await consumer.beginning_offsets(partitions)
    for tp in partitions:
        consumer.seek(tp, begins[tp] if tail is None else max(begins[tp], ends[tp] - tail))
    newest: dict[bytes, bytes] = {}
    while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
        batches: Any = await consumer.getmany(timeout_ms=200)
        for record in (record for batch in batches.values() for record in batch):
            newest.pop(record.key, None)
            if record.value is not None:
                newest[record.key] = record.value
        if batches:
            patience.reschedule(asyncio.get_running_loop().time() + READ_PATIENCE_S)
    return newest
