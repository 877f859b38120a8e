"""memory.stored -> whoever waits: is it searchable yet, and is it what is found?

A receipt names one event. Both stores say when they have done with it; a dead letter says that they
never will. Notices are heard as they go by, and the stores themselves are asked now and then, so that a
receipt from another day or another process has its answer too.
"""

import asyncio
import random
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Annotated, Self
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter

from pipeline.domain.receipts import STORES, Store, summed
from pipeline.ending import cancelled, within
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.asking import Asking
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import following, records, rewind
from pipeline.kafka.records import Record, event_id_in, legible
from schemas.events import STORED as NOTICES
from schemas.events import (
    MemoryCaptured,
    MemoryForgotten,
    MemoryRedriven,
    MemoryRevised,
    MemorySetAside,
    MemoryStored,
    Outcome,
    Stored,
    UserErased,
    Version,
)
from schemas.search import MAX_RECEIPTS, EventRef, ReceiptsAnswered, ReceiptsAsked, ReceiptState
from schemas.text import Id
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

OfMemory = MemoryCaptured | MemoryRevised | MemoryForgotten
"""What is published of one memory."""

Part = tuple[Store, int]
"""What has to be heard from: each store, for each partition that the event went to."""


class AnyReceipt(BaseModel):
    """What every receipt can do."""

    model_config = ConfigDict(frozen=True)

    user_id: Id
    event_id: UUID
    version: Version
    _receipts: "Receipts | None" = PrivateAttr(default=None)

    @property
    def token(self) -> str:
        """The receipt as a string, for `MemoryClient.receipt` in another process."""
        return self.model_dump_json()

    @property
    def parts(self) -> set[Part]:
        """Who has to say that it has done with the event."""
        return {(store, 0) for store in STORES}

    @property
    def event(self) -> EventRef:
        """The event, as the stores are asked about it."""
        raise NotImplementedError

    def answered_by(self, receipts: "Receipts") -> Self:
        """The same receipt, able to ask."""
        self._receipts = receipts
        return self

    async def stored(self, *, timeout_s: float = 30.0) -> Outcome:
        """Returns once both stores have done with the event, and tells what became of it:

        - "stored": both answer from this state. What was forgotten is forgotten.
        - "superseded": both answer from another one, because it is newer, or because this one was
          published under an idempotency key and there was a state already. A forgetting that is
          superseded has not forgotten anything.
        - "forgotten": the memory or its user was forgotten; what was said here is not found any more.

        Raises Unavailable when `timeout_s` have passed (it may still come: wait again), and Unusable
        with the reason when the event went to the dead letters.
        """
        (outcome,) = await self._asked.wait([self], timeout_s=timeout_s)
        assert outcome is not None, "what is set aside raises"
        return outcome

    async def status(self, *, timeout_s: float = 10.0) -> ReceiptState:
        """How far each store is, and what became of the event, as of now.

        Raises Unavailable where nobody answers.
        """
        (state,) = await self._asked.ask([self], timeout_s=timeout_s)
        return state

    @property
    def _asked(self) -> "Receipts":
        if self._receipts is None:
            raise Refused("This receipt belongs to no client: use `client.receipt(token)`.")
        return self._receipts


class Receipt(AnyReceipt):
    """Kafka has the event. Whether it is searchable yet can be awaited, or asked about later."""

    memory_id: Id
    if_absent: bool = False
    """Published under an idempotency key."""
    found: bool | None = None
    """Of a forgetting: whether there was such a memory; None where nobody could say so in time."""
    was_forgotten: Annotated[bool, Field(exclude=True)] = False
    """Of a forgetting that found nothing: whether it was forgotten before. No token tells it."""

    @classmethod
    def of(cls, event: OfMemory, *, found: bool | None = None, was_forgotten: bool = False) -> Self:
        """Of an event that Kafka has; what is said of a forgetting goes with it."""
        return cls(
            user_id=event.user_id,
            memory_id=event.memory_id,
            event_id=event.event_id,
            version=event.version,
            if_absent=isinstance(event, MemoryCaptured) and event.if_absent,
            found=found,
            was_forgotten=was_forgotten,
        )

    @property
    def event(self) -> EventRef:
        return EventRef(
            event_id=self.event_id,
            memory_id=self.memory_id,
            version=self.version,
            if_absent=self.if_absent,
        )


class UserReceipt(AnyReceipt):
    """The receipt for the forgetting of a user, which goes to each partition."""

    partitions: Annotated[int, Field(ge=1)]
    memories: Annotated[int | None, Field(exclude=True)] = None
    """How many the record held of the user before; None where nobody could say in time. No token tells it."""

    @property
    def parts(self) -> set[Part]:
        return {(store, partition) for store in STORES for partition in range(self.partitions)}

    @property
    def event(self) -> EventRef:
        return EventRef(event_id=self.event_id, version=self.version)


TOKEN: TypeAdapter[Receipt | UserReceipt] = TypeAdapter(Receipt | UserReceipt)


def raising(_: AnyReceipt, error: Unusable) -> None:
    """Who waits for several receipts and says nothing else is told of the first that is set aside."""
    raise error


class _Watch:
    """One event that somebody waits for."""

    def __init__(self, receipt: AnyReceipt) -> None:
        self.receipt = receipt
        self.missing = receipt.parts
        self._outcomes: dict[Store, Outcome] = {}
        self.was_told = False
        """Whether the stores themselves were asked when all was done."""
        self.set_aside: MemorySetAside | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(self, notice: Stored) -> None:
        match notice:
            case MemorySetAside():
                self.set_aside = notice
            case MemoryRedriven():
                self.set_aside = None
            case UserErased():
                self._strike({(notice.store, notice.partition)})
            case MemoryStored():
                self._outcomes[notice.store] = notice.outcome
                self._strike({(notice.store, 0)})

    def learn(self, state: ReceiptState) -> None:
        if state.outcome is not None:
            self.was_told = True
            self._outcomes = dict.fromkeys(STORES, state.outcome)
        known = {"record": state.record, "index": state.index}
        self._strike({part for part in self.missing if known[part[0]]})

    @property
    def outcome(self) -> Outcome | None:
        """What became of the event, as it was heard last; None where it was set aside."""
        if not self.done.done() or self.done.exception() is not None:
            return None
        # The forgetting of a user is done once it holds.
        return summed(self._outcomes.values()) if self._outcomes else "stored"

    def give_up(self) -> None:
        """Believes the dead letter."""
        if self.set_aside is not None and not self.done.done():
            told = f"It went to the dead letters at {self.set_aside.stage}: {self.set_aside.reason}"
            self.done.set_exception(Unusable(told))
            # Whoever waits for many receipts may not look at each of them.
            self.done.exception()

    def _strike(self, parts: set[Part]) -> None:
        self.missing -= parts
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class Receipts:
    """Knows which events are stored, by listening and by asking."""

    def __init__(self, connection: KafkaConnection, prefix: str, asking: Asking) -> None:
        self._connection = connection
        self._prefix = prefix
        self._asking = asking
        self._watched: dict[UUID, list[_Watch]] = defaultdict(list)
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
        by_event = {r.event_id: _Watch(r) for r in receipts}
        watches = list(by_event.values())
        for watch in watches:
            self._watched[watch.receipt.event_id].append(watch)
        try:
            await within(timeout_s, self._until_done(watches, on_progress, on_set_aside))
        except TimeoutError as error:
            pending = [watch for watch in watches if not watch.done.done()]
            if pending:
                raise Unavailable(_late(pending, len(watches), timeout_s)) from error
        finally:
            for watch in watches:
                self._forget(watch)
        return [by_event[receipt.event_id].outcome for receipt in receipts]

    async def ask(self, receipts: Sequence[AnyReceipt], *, timeout_s: float) -> list[ReceiptState]:
        """How far each store is with each event, in order. Raises Unavailable."""
        self._check_open()
        states: dict[UUID, ReceiptState] = {}
        for user_id, batch in _batches(receipts):
            states.update(await self._states(user_id, batch, timeout_s))
        return [states[receipt.event_id] for receipt in receipts]

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
        watches: Sequence[_Watch],
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
        pending: Sequence[_Watch] = watches
        while pending := _pending(pending, on_set_aside):
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

    async def _ask_again(self, watches: Sequence[_Watch]) -> None:
        """A notice tells what was, perhaps long ago: what is now, the stores know."""
        heard = [watch for watch in watches if watch.outcome is not None and not watch.was_told]
        for start in range(0, len(heard), MAX_RECEIPTS):
            await self._ask_about(heard[start : start + MAX_RECEIPTS])

    async def _believe(self, watches: Sequence[_Watch]) -> None:
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

    async def _ask_about(self, watches: Sequence[_Watch]) -> bool:
        """Asks the stores about some of these; tells whether they have answered."""
        # Any of them: the same ones each time would keep the others waiting.
        asked = random.sample(watches, min(len(watches), MAX_RECEIPTS))
        by_event = {watch.receipt.event_id: watch for watch in asked}
        for user_id, batch in _batches([watch.receipt for watch in asked]):
            try:
                states = await self._states(user_id, batch, ASK_EVERY_S)
            except Unavailable:
                # Nobody answers: the notices may still tell.
                return False
            for event_id, state in states.items():
                by_event[event_id].learn(state)
        return True

    async def _states(
        self, user_id: str, batch: Sequence[AnyReceipt], timeout_s: float
    ) -> dict[UUID, ReceiptState]:
        events = tuple(receipt.event for receipt in batch)
        answered = await self._asking.ask(
            lambda envelope: ReceiptsAsked(**envelope.fields(), user_id=user_id, events=events),
            timeout_s=timeout_s,
        )
        assert isinstance(answered, ReceiptsAnswered)
        return {state.event_id: state for state in answered.states}

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

    def _forget(self, watch: _Watch) -> None:
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


def _pending(
    watches: Sequence[_Watch], on_set_aside: Callable[[AnyReceipt, Unusable], None]
) -> list[_Watch]:
    """Who is still waited for. Tells what went wrong with the others, if anything did."""
    pending: list[_Watch] = []
    for watch in watches:
        if not watch.done.done():
            pending.append(watch)
        elif isinstance(error := watch.done.exception(), Unusable):
            on_set_aside(watch.receipt, error)
    return pending


def _late(pending: Sequence[_Watch], of: int, timeout_s: float) -> str:
    missing = sorted({store for watch in pending for store, _ in watch.missing})
    return (
        f"{len(pending)} of {of} not stored within {timeout_s:g} s; the {' and the '.join(missing)} "
        "did not say so yet. Nothing is lost: wait again, or see `hybrid-memory status`."
    )


def _batches(receipts: Sequence[AnyReceipt]) -> Iterable[tuple[str, Sequence[AnyReceipt]]]:
    by_user: dict[str, list[AnyReceipt]] = defaultdict(list)
    for receipt in receipts:
        by_user[receipt.user_id].append(receipt)
    for user_id, mine in by_user.items():
        for start in range(0, len(mine), MAX_RECEIPTS):
            yield user_id, mine[start : start + MAX_RECEIPTS]
