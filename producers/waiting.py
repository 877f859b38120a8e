"""memory.stored -> whoever waits: have both stores done with these events?

Both stores say when they have done with an event; a dead letter says that they never will. Notices are heard as
they go by, and the stores themselves are asked now and then, so that a receipt from another day or another
process has its answer too.
"""

import asyncio
import random
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.ending import cancelled, within
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.asking import Asking
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import following, records, rewind
from pipeline.kafka.records import Record, event_id_in, legible
from producers.receipts import AnyReceipt
from producers.watch import Watch, late, raising, still_pending
from schemas.events import STORED as NOTICES
from schemas.events import MemoryRedriven, MemorySetAside, Outcome
from schemas.search import MAX_RECEIPTS, EventRef, ReceiptsAnswered, ReceiptsAsked, ReceiptState
from schemas.topics import STORED

log = structlog.get_logger(__name__)

ASK_EVERY_S = 2.0
"""How long to trust the notices before the stores are asked again."""

REMEMBERED = 10_000
CLOCKS_DIFFER_MS = 60_000
"""A notice is dated by its stage's clock, a receipt by its publisher's."""
MANY = 100
PAUSE_S = 0.1
"""Who waits for many receipts looks at them ten times a second, not at each notice."""


class Receipts:
    """Knows which events are stored, by listening and by asking."""

    def __init__(self, connection: KafkaConnection, prefix: str, asking: Asking) -> None:
        self._connection = connection
        self._prefix = prefix
        self._asking = asking
        self._watched: dict[UUID, list[Watch]] = defaultdict(list)
        self._set_aside: OrderedDict[UUID, MemorySetAside] = OrderedDict()
        """What was heard last: a dead letter is told of once, and nobody may be waiting just then."""
        self._heard_from: int | None = None
        """The version, in microseconds, from which on notices have been heard."""
        self._starting = asyncio.Lock()
        self._news = asyncio.Event()
        self._open = AsyncExitStack()
        self._closed = False
        self._consumer: AIOKafkaConsumer | None = None

    async def wait(
        self,
        receipts: Sequence[AnyReceipt],
        *,
        timeout_s: float,
        on_progress: Callable[[int], None] = lambda _: None,
        on_set_aside: Callable[[AnyReceipt, Unusable], None] = raising,
    ) -> list[Outcome | None]:
        """Waits until both stores have done with every event; tells with how many, as they come.

        Returns what became of each, in order; None for one that was set aside.

        Raises Unavailable when `timeout_s` have passed, Unusable at once when one is set aside, unless
        `on_set_aside` takes it: then the others are still waited for.
        """
        # Two publishings under one idempotency key have one event id, and each its own outcome.
        by_event = {receipt.event: Watch(receipt) for receipt in receipts}
        watches = list(by_event.values())
        for watch in watches:
            self._watched[watch.receipt.event_id].append(watch)
        try:
            await within(timeout_s, self._until_done(watches, on_progress, on_set_aside))
        except TimeoutError as error:
            pending = [watch for watch in watches if not watch.done.done()]
            if pending:
                raise Unavailable(late(pending, len(watches), timeout_s)) from error
        finally:
            for watch in watches:
                self._forget(watch)
        return [by_event[receipt.event].outcome for receipt in receipts]

    async def ask(self, receipts: Sequence[AnyReceipt], *, timeout_s: float) -> list[ReceiptState]:
        """How far each store is with each event, in order. Raises Unavailable."""
        self._check_open()
        states: dict[EventRef, ReceiptState] = {}
        for user_id, batch in _batches(receipts):
            states.update(await self._states(user_id, batch, timeout_s))
        return [states[receipt.event] for receipt in receipts]

    async def close(self) -> None:
        """Stops listening, for good; who still waits is told."""
        self._closed = True
        self._news.set()
        # What is just being opened is closed, too.
        async with self._starting:
            await self._open.aclose()
            self._consumer = self._heard_from = None

    def _check_open(self) -> None:
        if self._closed:
            raise Refused(
                "The client of this receipt was closed. Open another one: "
                "`client.receipt(receipt.token)` goes on where this one stopped."
            )

    async def _until_done(
        self,
        watches: Sequence[Watch],
        on_progress: Callable[[int], None],
        on_set_aside: Callable[[AnyReceipt, Unusable], None],
    ) -> None:
        self._check_open()
        await self._listen(min((watch.receipt.version for watch in watches), default=0))
        for watch in watches:
            if (notice := self._set_aside.get(watch.receipt.event_id)) is not None:
                watch.hear(notice)
        # What was stored before anybody waited is not heard of again: ask first.
        answered = await self._ask_about([watch for watch in watches if not watch.done.done()])
        pending: Sequence[Watch] = watches
        while pending := still_pending(pending, on_set_aside):
            if any(watch.set_aside for watch in pending):
                await self._believe([watch for watch in pending if watch.set_aside])
                continue
            on_progress(len(watches) - len(pending))
            self._check_open()
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), ASK_EVERY_S)
            except TimeoutError:
                await self._ask_about(pending)
            if len(pending) > MANY:
                await asyncio.sleep(PAUSE_S)
        on_progress(len(watches))
        if answered:
            await self._ask_again(watches)

    async def _ask_again(self, watches: Sequence[Watch]) -> None:
        """A notice tells what was, perhaps long ago: what is now, the stores know."""
        heard = [watch for watch in watches if watch.outcome is not None and not watch.was_told]
        for start in range(0, len(heard), MAX_RECEIPTS):
            await self._ask_about(heard[start : start + MAX_RECEIPTS])

    async def _believe(self, watches: Sequence[Watch]) -> None:
        """Gives up what was set aside, unless it was redriven since.

        Notices are heard in their order, and those of long ago, too: one that takes this one back may
        just not have been read yet. Where it was stored since, the stores know.
        """
        await self._hear_so_far()
        for start in range(0, len(watches), MAX_RECEIPTS):
            await self._ask_about(watches[start : start + MAX_RECEIPTS])
        for watch in watches:
            watch.give_up()

    async def _hear_so_far(self) -> None:
        """Returns when every notice that Kafka has now has been heard."""
        ends: Mapping[TopicPartition, int] | None = None
        while True:
            self._check_open()
            assert self._consumer is not None
            with suppress(KafkaError):
                ends = ends or await self._consumer.end_offsets(self._consumer.assignment())
                if not await _is_behind(self._consumer, ends):
                    return
            await asyncio.sleep(PAUSE_S)

    async def _ask_about(self, watches: Sequence[Watch]) -> bool:
        """Asks the stores about some of these; tells whether they have answered."""
        # Any of them: the same ones each time would keep the others waiting.
        asked = random.sample(watches, min(len(watches), MAX_RECEIPTS))
        by_event = {watch.receipt.event: watch for watch in asked}
        for user_id, batch in _batches([watch.receipt for watch in asked]):
            try:
                states = await self._states(user_id, batch, ASK_EVERY_S)
            except Unavailable:
                # Nobody answers: the notices may still tell.
                return False
            for event, state in states.items():
                by_event[event].learn(state)
        return True

    async def _states(
        self, user_id: str, batch: Sequence[AnyReceipt], timeout_s: float
    ) -> dict[EventRef, ReceiptState]:
        events = tuple(receipt.event for receipt in batch)
        answered = await self._asking.ask(
            lambda envelope: ReceiptsAsked(**envelope.fields(), user_id=user_id, events=events),
            timeout_s=timeout_s,
        )
        assert isinstance(answered, ReceiptsAnswered)
        return dict(zip(events, answered.states, strict=True))

    async def _listen(self, version: int) -> None:
        """Hears the notices from `version` on, those that went by long ago too."""
        async with self._starting:
            self._check_open()
            if self._consumer is None:
                self._consumer = await self._open.enter_async_context(
                    following(self._connection, STORED.under(self._prefix))
                )
                self._open.push_async_callback(
                    cancelled, asyncio.create_task(self._hear(self._consumer))
                )
            if self._heard_from is None or version < self._heard_from:
                await rewind(self._consumer, since_ms=version // 1_000 - CLOCKS_DIFFER_MS)
                self._heard_from = version

    async def _hear(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                async for record in records(consumer, commit=False):
                    self._notice(record)
            except KafkaError as error:
                # Receipts are asked about meanwhile.
                log.warning("notices are late", reason=str(error))
                await asyncio.sleep(ASK_EVERY_S)

    def _notice(self, record: Record) -> None:
        event_id = event_id_in(record)
        if event_id is None or not (event_id in self._watched or _tells_of_dead_letters(record)):
            return
        try:
            notice = NOTICES.validate_json(record.value or b"")
        except ValueError:
            return
        if isinstance(notice, MemorySetAside):
            self._set_aside[event_id] = notice
            while len(self._set_aside) > REMEMBERED:
                self._set_aside.popitem(last=False)
        if isinstance(notice, MemoryRedriven):
            self._set_aside.pop(event_id, None)
        for watch in self._watched.get(event_id, ()):
            watch.hear(notice)
            self._news.set()

    def _forget(self, watch: Watch) -> None:
        event_id = watch.receipt.event_id
        self._watched[event_id].remove(watch)
        if not self._watched[event_id]:
            del self._watched[event_id]


async def _is_behind(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    positions = [(await consumer.position(tp), end) for tp, end in ends.items()]
    return any(position < end for position, end in positions)


def _tells_of_dead_letters(record: Record) -> bool:
    return dict(legible(record.headers)).get("type") in _OF_DEAD_LETTERS


_OF_DEAD_LETTERS = {kind.__name__.encode() for kind in (MemorySetAside, MemoryRedriven)}


def _batches(receipts: Sequence[AnyReceipt]) -> Iterable[tuple[str, Sequence[AnyReceipt]]]:
    by_user: dict[str, list[AnyReceipt]] = defaultdict(list)
    for receipt in receipts:
        by_user[receipt.user_id].append(receipt)
    for user_id, mine in by_user.items():
        for start in range(0, len(mine), MAX_RECEIPTS):
            yield user_id, mine[start : start + MAX_RECEIPTS]
