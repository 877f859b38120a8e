"""The application of a chaos run: publishes the plan's events, again and again until acknowledged.

What it notes is what was promised to it: an event counts from the moment its publishing returned. One
user's events go one after the other, those of many users side by side.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from aiokafka.errors import KafkaError

from pipeline.chaos.checking import POISON_KEY, Fact
from pipeline.chaos.plan import Step
from pipeline.domain.clock import VersionClock, moment_of
from pipeline.domain.identity import content_hash, event_id_of
from pipeline.errors import Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection, started_producer, stopped_producer
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from producers.client import MemoryClient
from producers.receipts import Receipt
from schemas.events import MemoryCaptured
from schemas.topics import CLASSIFIED, ENRICHED, EVENTS, RECALLED, STORED, TIERED

_FIRST_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_AGAIN_S = 0.2
_REVISE_S = 5.0
_QUESTION_S = 5.0
_HITS = 5
_MOST_REFUSALS = 10
_READERS = {
    "events": (EVENTS, ("classifier",)),
    "classified": (CLASSIFIED, ("embedder",)),
    "enriched": (ENRICHED, ("record_writer", "vector_writer")),
    "stored": (STORED, ("contextualizer",)),
    "recalled": (RECALLED, ("lifecycle",)),
    "tiered": (TIERED, ("tier_writer",)),
}
STRANGE_HEADERS: Sequence[Sequence[tuple[str, bytes | None]]] = (
    [("event-id", None)],
    [("event-id", b"\xff\xfe\x00"), ("type", b"\xc3\x28")],
    [("", b""), ("traceparent", None), ("type", b"Nonsense")],
    [("dead-stage", b"forged"), ("event-id", b"not a uuid")],
)
POISON: Sequence[bytes | None] = (
    None,
    b"",
    b"{",
    b"null",
    b"[[[[",
    b"\xff\xfe\x00\x01",
    b'{"type": "MemoryCaptured"}',
    b'{"type": "MemoryEnriched", "user_id": "", "memory_id": "x"}',
    b'{"type": "UserForgotten", "user_id": " ", "version": -1}',
    b'{"type": "MemoryForgotten", "user_id": "\\ud800", "memory_id": "x"}',
    b"[" * 5_000,
    b'"' + b"x" * 200_000 + b'"',
)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Raw:
    """A record as it was sent, to be sent again."""

    event: MemoryCaptured
    headers: Any


class Publisher:
    """Publishes steps; what was acknowledged stands in `facts`."""

    def __init__(self, connection: KafkaConnection, prefix: str) -> None:
        self.facts: list[Fact] = []
        self.sent: Counter[UUID] = Counter()
        """Records of each event whose id we know; each try counts."""
        self.poison: set[tuple[str, str]] = set()
        """The name of each poison record, and each stage that must set it aside."""
        self.published = 0
        self.in_progress = 0
        """Calls that were not acknowledged yet; no questions."""
        self.asking = 0
        """Questions that were not answered yet."""
        self.answered = 0
        self.unanswered = 0
        """Calls that ended without an acknowledgement, and were made again."""
        self.refused: list[str] = []
        """Why a call was refused that was right: nothing is lost by it, but somebody was told wrongly."""
        self._prefix = prefix
        self._connection = connection
        self._clock = VersionClock()
        self._in_turn: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._raw: dict[int, _Raw] = {}
        self._open = AsyncExitStack()
        self._opened = 0
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._open_anew(self._opened)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _open_anew(self, opened: int) -> None:
        """Connects again, as an application does whose producer Kafka will not listen to any more.

        `opened` is the connection that was used: somebody else may have opened another meanwhile.
        """
        async with self._opening:
            if opened != self._opened:
                return
            async with AsyncExitStack() as fresh:
                client = MemoryClient(self._connection, prefix=self._prefix)
                self.client = await fresh.enter_async_context(client)
                self._producer: Any = await started_producer(self._connection)
                fresh.push_async_callback(stopped_producer, self._producer)
                closing = asyncio.create_task(self._open.aclose())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
                self._open = fresh.pop_all()
                self._opened += 1

    async def publish(self, steps: Sequence[Step]) -> None:
        """Returns when every step was acknowledged."""
        by_user: defaultdict[str, list[Step]] = defaultdict(list)
        asked = [step for step in steps if step.kind == "asked"]
        for step in steps:
            if step.kind != "asked":
                by_user[step.user_id].append(step)
        async with asyncio.TaskGroup() as together:
            for user_id, mine in by_user.items():
                together.create_task(self._in_order(user_id, mine))
            together.create_task(self.ask(asked))
        self.published += len(asked)

    async def ask(self, steps: Sequence[Step]) -> None:
        """Asks side by side; returns when all are answered. What is told first counts as recalled."""
        async with asyncio.TaskGroup() as together:
            for step in steps:
                together.create_task(self._ask(step))

    async def _ask(self, step: Step) -> None:
        self.asking += 1
        try:
            await self._persistently(
                lambda: self.client.search(
                    step.text, user_id=step.user_id, limit=_HITS, timeout_s=_QUESTION_S
                )
            )
        finally:
            self.asking -= 1
        self.answered += 1

    async def _in_order(self, user_id: str, steps: Sequence[Step]) -> None:
        async with self._in_turn[user_id]:
            for batch in batches(steps):
                await self._step(batch)
                self.published += len(batch)

    async def _step(self, batch: Sequence[Step]) -> None:
        step = batch[0]
        assert step.kind != "asked", "`ask` does that: questions wait for nobody"
        match step.kind:
            case "captured" | "overwritten" | "refused":
                await self._remember(batch)
            case "revised":
                await self._revise(step)
            case "forgotten":
                await self._forget(step)
            case "user forgotten":
                await self._forget_user(step)
            case "keyed" | "repeated":
                await self._remember_once(step)
            case "raw" | "strange":
                await self._send_new(step)
            case "again":
                await self._send_again(step)
            case "poison":
                await self._send_poison(step)

    async def _remember(self, batch: Sequence[Step]) -> None:
        memories = [
            {"user_id": step.user_id, "memory_id": step.memory_id, **said(step)} for step in batch
        ]
        receipts = await self._acknowledged(lambda: self.client.remember_many(memories))
        for step, receipt in zip(batch, receipts, strict=True):
            self._note(step, receipt)

    async def _revise(self, step: Step) -> None:
        says = said(step)

        async def revise() -> Receipt | None:
            try:
                return await self.client.revise(
                    step.memory_id,
                    says["text"],
                    user_id=step.user_id,
                    metadata=says["metadata"],
                    occurred_at=says["occurred_at"],
                    timeout_s=_REVISE_S,
                )
            except Refused as error:
                if "There is no memory" in str(error):
                    return None
                raise

        receipt = await self._acknowledged(revise)
        if receipt is None:
            # So far behind are the stages that nobody knows of the memory yet: say it whole.
            await self._remember([step])
        else:
            self._note(step, receipt)

    async def _forget(self, step: Step) -> None:
        receipt = await self._acknowledged(
            lambda: self.client.forget(step.memory_id, user_id=step.user_id)
        )
        self.sent[receipt.event_id] += 1
        self.facts.append(
            Fact(receipt.event_id, step.user_id, step.memory_id, receipt.version, None)
        )

    async def _forget_user(self, step: Step) -> None:
        receipt = await self._acknowledged(lambda: self.client.forget_user(step.user_id))
        self.sent[receipt.event_id] += receipt.partitions
        self.facts.append(
            Fact(
                receipt.event_id,
                step.user_id,
                None,
                receipt.version,
                None,
                parts=receipt.partitions,
            )
        )

    async def _remember_once(self, step: Step) -> None:
        assert step.key is not None
        event_id = event_id_of(step.user_id, step.key)

        async def remember() -> Receipt:
            self.sent[event_id] += 1
            (receipt,) = await self.client.remember_many(
                [{"user_id": step.user_id, "idempotency_key": step.key, **said(step)}]
            )
            return receipt

        receipt = await self._acknowledged(remember)
        self.facts.append(
            Fact(
                event_id,
                step.user_id,
                receipt.memory_id,
                receipt.version,
                content(step),
                yields=True,
            )
        )

    async def _send_new(self, step: Step) -> None:
        version = self._clock.next()
        event = MemoryCaptured(
            event_id=uuid4(),
            user_id=step.user_id,
            memory_id=step.memory_id,
            version=version,
            published_at=moment_of(version),
            **said(step),
        )
        headers: Any = as_pairs(headers_of(event))
        if step.kind == "strange":
            headers = STRANGE_HEADERS[step.number % len(STRANGE_HEADERS)]
        self._raw[step.number] = _Raw(event, headers)
        await self._send(self._raw[step.number])
        self.facts.append(
            Fact(event.event_id, step.user_id, step.memory_id, version, content(step))
        )

    async def _send_again(self, step: Step) -> None:
        assert step.of is not None
        await self._send(self._raw[step.of])

    async def _send(self, raw: _Raw) -> None:
        async def send() -> None:
            self.sent[raw.event.event_id] += 1
            await self._producer.send_and_wait(
                EVENTS.under(self._prefix),
                value_of(raw.event),
                key=key_of(raw.event),
                headers=list(raw.headers),
            )

        await self._acknowledged(send)

    async def _send_poison(self, step: Step) -> None:
        topic, stages = _READERS[step.topic]
        value = POISON[step.number % len(POISON)]
        name = f"{POISON_KEY}{step.number}"
        await self._acknowledged(
            lambda: self._producer.send_and_wait(
                topic.under(self._prefix),
                value,
                key=name.encode(),
                headers=list(STRANGE_HEADERS[step.number % len(STRANGE_HEADERS)]),
            )
        )
        self.poison |= {(name, stage) for stage in stages}

    async def _acknowledged(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        self.in_progress += 1
        try:
            return await self._persistently(call)
        finally:
            self.in_progress -= 1

    async def _persistently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Makes a call until it is answered. One that is refused again and again is a bug of ours."""
        for _ in range(_MOST_REFUSALS):
            while True:
                opened = self._opened
                try:
                    return await call()
                except Unavailable:
                    await self._call_again()
                except (Refused, KafkaError) as error:
                    # What Kafka answers while its disk is full says nothing of the call, and
                    # neither does a client that was closed under it.
                    if opened == self._opened and not _by_kafka(error):
                        self.refused.append(str(error))
                        break
                    await self._call_again(opened)
            await asyncio.sleep(_AGAIN_S)
        raise AssertionError(f"A call is refused that is right: {self.refused[-1]}")

    async def _call_again(self, opened: int | None = None) -> None:
        self.unanswered += 1
        if opened is not None:
            with suppress(Unavailable):
                await self._open_anew(opened)
        await asyncio.sleep(_AGAIN_S)

    def _note(self, step: Step, receipt: Receipt) -> None:
        self.sent[receipt.event_id] += 1
        self.facts.append(
            Fact(
                receipt.event_id,
                step.user_id,
                receipt.memory_id,
                receipt.version,
                content(step),
                refused=step.kind == "refused",
            )
        )


def _by_kafka(error: Exception) -> bool:
    return isinstance(error.__cause__ or error, KafkaError)


def batches(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """What is remembered in a row goes in one call; everything else by itself."""
    for remembered, run in groupby(
        steps, key=lambda step: step.kind in ("captured", "overwritten", "refused")
    ):
        if remembered:
            yield list(run)
        else:
            yield from ([step] for step in run)


def said(step: Step) -> dict[str, Any]:
    """What the step says of its memory."""
    return {
        "text": step.text,
        "occurred_at": _FIRST_MOMENT + timedelta(seconds=step.number),
        "speaker": f"friend of {step.user_id}",
        "metadata": {"note": step.number},
        "run_id": step.run_id,
    }


def content(step: Step) -> str:
    """The hash of what the step says."""
    return content_hash(MemoryCaptured.model_construct(**said(step)))
