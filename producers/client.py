"""Applications -> memory.events: remember, revise, forget; and search by question and answer.

This is what applications import. It needs neither a model nor a database driver: it speaks Kafka.

    async with MemoryClient("localhost:9092") as memory:
        receipt = await memory.remember("I love spicy Thai food", user_id="alice")
        await receipt.stored(timeout_s=30)  # "stored", "superseded" or "forgotten"
        answer = await memory.search("dinner ideas", user_id="alice")
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar, overload
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.domain.clock import VersionClock, moment_of
from pipeline.domain.identity import event_id_of
from pipeline.domain.telling import told
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.addresses import bootstrap_servers
from pipeline.kafka.asking import Asking, Envelope
from pipeline.kafka.connection import (
    PUBLISH_PATIENCE_S,
    KafkaConnection,
    started_producer,
    stopped_producer,
)
from pipeline.kafka.following import following, records
from pipeline.kafka.reading import enriched_of
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from producers.backlog import Backlog, nothing_on_its_way
from producers.conversation import Conversation
from producers.receipts import TOKEN, AnyReceipt, Receipt, Receipts, UserReceipt, raising
from producers.seen import Passed, Seen
from schemas.events import (
    MOST_BESIDE,
    Enriched,
    Event,
    MemoryCaptured,
    MemoryEnriched,
    MemoryForgotten,
    MemoryRevised,
    Outcome,
    Said,
    UserForgotten,
    Utc,
)
from schemas.filters import Where
from schemas.search import (
    Asked,
    CountsAnswered,
    CountsAsked,
    KnownMemory,
    MemoryAnswered,
    MemoryAsked,
    Mode,
    NewestAnswered,
    NewestAsked,
    RecordedMemory,
    SearchAnswered,
    SearchAsked,
    SearchFilter,
)
from schemas.text import Id, Metadata, Text
from schemas.topics import ENRICHED, EVENTS

IN_FLIGHT = 1_000
"""Events that are sent before their acknowledgements are awaited."""
FIND_PAUSE_S = 0.2
LOOK_EVERY_S = 1.0
FORGET_PATIENCE_S = 2.0
"""How long a forgetting waits to hear what there is to forget."""
TOPICS_PATIENCE_S = 15.0

_FLAT_ONLY = {"occurred_from", "occurred_until"}
"""What the flat form of a filter knows and the nested one says otherwise."""

Built = TypeVar("Built", bound=BaseModel)


def _as_said(given: Any) -> Any:
    return {"text": given} if isinstance(given, str) else given


class NewMemory(BaseModel):
    """Something to remember, and whose it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Text
    user_id: Id
    memory_id: Id | None = None
    """Made up unless given. The same id of the same user is the same memory."""
    occurred_at: Utc | None = None
    """When what it tells happened; now unless given."""
    speaker: Id | None = None
    agent_id: Id | None = None
    app_id: Id | None = None
    run_id: Id | None = None
    metadata: Metadata = {}
    preceding: tuple[Annotated[Said, BeforeValidator(_as_said)], ...] = Field(
        default=(), max_length=MOST_BESIDE
    )
    """What was said just before in the same conversation, the nearest last; a text is one of nobody."""
    idempotency_key: Id | None = None
    """Publishing again with the same key changes nothing, not even after a revision or a forgetting.

    With a `memory_id`, too, it is remembered only where no such memory is, or ever was.
    """


class PartlyPublished(Unavailable):
    """Kafka went away before it had acknowledged all: `remember_many(error.left)` goes on, with no doubles."""

    def __init__(self, why: str, accepted: list[Receipt], left: list[NewMemory]) -> None:
        super().__init__(why)
        self.accepted = accepted
        """Receipts of the first ones, which Kafka has for certain."""
        self.left = left
        """The others, with the ids that were made up for them. Some of them may have arrived."""


class MemoryClient:
    """The memory of many users, over Kafka.

    Every method may raise Unavailable (Kafka, or who should answer, is away: try again) and Refused (the
    call cannot be right: the message says why). When a method that publishes returns, Kafka has the
    event on all its in-sync replicas, and nothing accepted is lost.

    `kafka` is host:port, several separated by commas. A client is for one `async with`. With
    `most_behind`, publishing waits while the stages are more than so many events behind, or raises
    Unavailable where `when_behind` is "refuse"; looked at once a second.
    """

    def __init__(
        self,
        kafka: str | KafkaConnection = "localhost:9092",
        *,
        prefix: str = "memory",
        most_behind: int | None = None,
        when_behind: Literal["wait", "refuse"] = "wait",
    ) -> None:
        self._connection = _connection_to(kafka)
        self._prefix = prefix
        self._clock = VersionClock()
        self._seen = Seen()
        self._own: dict[tuple[str, str], MemoryCaptured | MemoryRevised] = {}
        self._stack = AsyncExitStack()
        self._producer: AIOKafkaProducer | None = None
        self._entered = False
        self._backlog = (
            None
            if most_behind is None
            else Backlog(self._connection, prefix, most=most_behind, when_full=when_behind)
        )
        self._asking = Asking(self._connection, prefix)
        self._receipts = Receipts(self._connection, prefix, self._asking)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise Refused(
                "This client has had its `async with`: go on with it inside, or make another one with "
                "`MemoryClient(...)`."
            )
        self._entered = True
        try:
            await self._start()
        except BaseException:
            # Nothing came of it: the same client may try again.
            self._entered, self._producer = False, None
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        self._producer = await started_producer(self._connection)
        self._stack.push_async_callback(stopped_producer, self._producer)
        await self._check_topics()
        self._stack.push_async_callback(self._asking.close)
        self._stack.push_async_callback(self._receipts.close)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._producer = None

    # Publishing

    async def remember(
        self,
        text: str,
        *,
        user_id: str,
        memory_id: str | None = None,
        occurred_at: datetime | None = None,
        speaker: str | None = None,
        agent_id: str | None = None,
        app_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        preceding: Sequence[str | Said] = (),
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Remembers one text (1 to 16,000 characters) of one user.

        `preceding` are up to two texts said just before in the same conversation, the nearest last.
        With an `idempotency_key` the call may be repeated: only the first one counts, by the clocks of
        who publishes, and what was forgotten since stays so. Another key is another memory, unless `memory_id` names one: then the
        text is remembered only where no such memory is, or ever was. The receipt's outcome tells.
        """
        memory = _built(
            NewMemory,
            text=text,
            user_id=user_id,
            memory_id=memory_id,
            occurred_at=occurred_at,
            speaker=speaker,
            agent_id=agent_id,
            app_id=app_id,
            run_id=run_id,
            metadata={} if metadata is None else metadata,
            preceding=preceding,
            idempotency_key=idempotency_key,
        )
        (receipt,) = await self.remember_many([memory])
        return receipt

    async def remember_many(
        self, memories: Iterable[NewMemory | Mapping[str, Any]]
    ) -> list[Receipt]:
        """Remembers many texts, in order, without waiting for each.

        All are checked before the first is published: Refused names the one that is wrong, and then
        nothing was published. Give a few thousand at a time: it keeps one receipt for each. Where Kafka goes
        away in between it raises PartlyPublished, an Unavailable that tells what is left.
        """
        checked = [_checked(index, memory) for index, memory in enumerate(memories)]
        events = [self._captured(memory) for memory in checked]
        receipts: list[Receipt] = []
        for start in range(0, len(events), IN_FLIGHT):
            some = events[start : start + IN_FLIGHT]
            try:
                await self._publish([(event, None) for event in some])
            except Unavailable as error:
                raise _partly(error, receipts, checked[start:], events[start:]) from error
            receipts += [self._receipt(event) for event in some]
        return receipts

    @asynccontextmanager
    async def conversation(
        self,
        *,
        user_id: str,
        run_id: str | None = None,
        agent_id: str | None = None,
        app_id: str | None = None,
    ) -> AsyncGenerator[Conversation]:
        """Remembers turns that belong together: each is understood by the two before it.

        `run_id` names the conversation; one is made up unless given.
        """
        self._started()
        yield Conversation(
            self,
            user_id=user_id,
            run_id=run_id or str(uuid4()),
            agent_id=agent_id,
            app_id=app_id,
        )

    async def revise(
        self,
        memory_id: str,
        text: str,
        *,
        user_id: str,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | None = None,
        timeout_s: float = 10.0,
    ) -> Receipt:
        """Replaces the text of a memory; what is not given stays as it was.

        The memory's newest state is asked for first, so a query consumer must be running. Waits up to
        `timeout_s` for a memory that may still be on its way. Raises Refused where there is none.
        """
        said = _built(NewMemory, text=text, user_id=user_id, memory_id=memory_id)
        known = await self._newest(said.user_id, memory_id, timeout_s)
        event = _built(
            MemoryRevised,
            # A clock that is behind must not make the revision older than what it revises.
            **self._event(said.user_id, uuid4(), after=known.version),
            memory_id=memory_id,
            text=text,
            occurred_at=occurred_at or known.occurred_at,
            speaker=known.speaker,
            agent_id=known.agent_id,
            app_id=known.app_id,
            run_id=known.run_id,
            metadata=known.metadata if metadata is None else metadata,
        )
        await self._publish([(event, None)])
        return self._receipt(event)

    async def forget(self, memory_id: str, *, user_id: str) -> Receipt:
        """Forgets one memory, for good: older events that arrive late do not bring it back.

        Asks first what there is: the receipt's `found` tells whether there was such a memory, and the
        forgetting is newer than that by whatever clock. It is published in any case: a memory that is
        on its way stays forgotten. Where nobody answers within 2 s, `found` is None. `was_forgotten`
        tells what was forgotten before from what nobody knows.
        """
        found, was_forgotten = await self._is_there(user_id, memory_id)
        after = self._seen.newest(user_id, memory_id)
        fields = self._event(user_id, uuid4(), after=after)
        event = _built(MemoryForgotten, **fields, memory_id=memory_id)
        self._own.pop((event.user_id, event.memory_id), None)
        await self._publish([(event, None)])
        return self._receipt(event, found=found, was_forgotten=was_forgotten)

    async def forget_user(self, user_id: str) -> UserReceipt:
        """Forgets everything of one user up to now. What is remembered later stays.

        Asks first how new the newest memory of the user is, so that what a clock ahead of ours has
        remembered goes, too. Where nobody answers within 2 s, what such a clock has remembered stays,
        unless this client has seen it; what is not in the record yet stays in any case. The receipt's
        `memories` tells how many there were, 0 for a user nobody knows: that is no error.
        """
        held = await self._held_of_user(user_id)
        newest = max(held.version if held else 0, self._seen.newest_of_user(user_id))
        fields = self._event(user_id, uuid4(), after=newest)
        partitions = len(await self._partitions())
        events = [
            _built(UserForgotten, **fields, partition=partition, partitions=partitions)
            for partition in range(partitions)
        ]
        for key in [key for key in self._own if key[0] == user_id]:
            del self._own[key]
        # One copy on each partition: there it stands behind all that it must outlive.
        await self._publish([(event, event.partition) for event in events])
        self._seen.forgot_user(user_id, events[0].version)
        return UserReceipt(
            user_id=user_id,
            event_id=events[0].event_id,
            version=events[0].version,
            partitions=partitions,
            memories=held.memories if held else None,
        ).answered_by(self._receipts)

    # Asking

    async def search(
        self,
        text: str,
        *,
        user_id: str,
        limit: int = 10,
        min_score: float | None = None,
        filter: SearchFilter | Where | Mapping[str, Any] | None = None,
        mode: Mode = "hybrid",
        rerank: bool | None = None,
        diversity: float = 0.0,
        explain: bool = False,
        recall: bool = True,
        use_classifiers: bool = True,
        as_of: datetime | None = None,
        timeout_s: float = 10.0,
    ) -> SearchAnswered:
        """The user's memories that answer `text` best, best first.

        `mode` finds by meaning and by words ("hybrid"), by meaning alone ("dense") or by words alone
        ("lexical"). `limit` is 1 to 100; `min_score` leaves out what scores less: a cosine where the mode
        is dense, otherwise what all signals weigh together, 1 where everything speaks for a memory.
        `rerank` has the best hits read again together with the question, or not; unless given, where
        RERANKER_MODEL is set for the query consumer. `diversity`, 0 to 1, prefers hits that are unlike
        better ones. The answer's `degraded` says what could not be done of that. With
        `explain` each hit tells what every signal gave and added to the score, and which words matched.
        Without `use_classifiers` topics and importance count nothing. `as_of` searches what was believed at
        that moment: what came later is not there, what was revised since has its text of then, what was
        forgotten since stays forgotten. `filter` may name `domain`, `topics` (any
        of them; `hybrid-memory docs topics` lists those of the classifier, and any other finds nothing), `occurred_from` (inclusive) and `occurred_until` (exclusive), `speaker`, `agent_id`,
        `app_id`, `run_id`, `tiers` (any of "short", "medium", "long", "archived") and `metadata` (each key
        with its value): all must hold; archived memories are found by their tier alone. It may nest, and
        test more than equality: `{"or": [{"speaker": "Ana"}, {"metadata": {"stars": {"gte": 4}}}]}`;
        `schemas.filters` says how. The best hits count as recalled and may rise for it: not so with
        `recall=False`, for evaluations and dashboards. Days that `text` names ("today", "on 8 May") are those
        of UTC, wherever the asker is. A user nobody knows has no memories.
        """
        if not str(text).strip():
            raise Refused("text: is empty: say what to look for")
        narrowed = _narrowed(filter)
        answered = await self._ask(
            lambda envelope: SearchAsked(
                **envelope.fields(),
                user_id=user_id,
                text=text,
                limit=limit,
                min_score=min_score,
                filter=narrowed,
                mode=mode,
                rerank=rerank,
                diversity=diversity,
                explain=explain,
                recall=recall,
                use_classifiers=use_classifiers,
                as_of=as_of,
            ),
            timeout_s,
        )
        assert isinstance(answered, SearchAnswered)
        for hit in answered.hits:
            self._seen.add(user_id, hit.memory_id, hit.version)
        return answered

    async def get(
        self,
        memory_id: str,
        *,
        user_id: str,
        as_of: datetime | None = None,
        timeout_s: float = 10.0,
    ) -> RecordedMemory | None:
        """The newest state of a memory; None where there is none, or it was forgotten.

        With `as_of` the state that it had at that moment.
        """
        return (await self._known(user_id, memory_id, timeout_s, as_of)).memory

    async def count(self, *, user_id: str, timeout_s: float = 10.0) -> int | None:
        """How many memories of a user the record holds; None where a desk of an earlier version is asked."""
        return (await self._newest_asked(user_id, timeout_s)).memories

    async def counts(self, *, timeout_s: float = 10.0) -> CountsAnswered:
        """How many memories each store holds, of all users: an operator's question."""
        answered = await self._ask(lambda envelope: CountsAsked(**envelope.fields()), timeout_s)
        assert isinstance(answered, CountsAnswered)
        return answered

    def receipt(self, token: str) -> Receipt | UserReceipt:
        """A receipt from another process, or of a client that was closed, by its token."""
        self._started()
        try:
            return TOKEN.validate_json(token).answered_by(self._receipts)
        except ValidationError as error:
            raise Refused(f"This is no receipt: {told(error)}") from error

    async def stored(
        self,
        receipts: Sequence[AnyReceipt],
        *,
        timeout_s: float,
        on_progress: Callable[[int], None] = lambda _: None,
        on_set_aside: Callable[[AnyReceipt, Unusable], None] = raising,
    ) -> list[Outcome | None]:
        """Waits for many receipts at once; tells how many are done with as they come.

        Returns the outcome of each, in order, and raises, as `Receipt.stored` does. With
        `on_set_aside`, what went to the dead letters is told there, and its outcome is None; the
        others are still waited for.
        """
        return await self._receipts.wait(
            receipts, timeout_s=timeout_s, on_progress=on_progress, on_set_aside=on_set_aside
        )

    # Subscribing

    @overload
    def subscribe(
        self,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        group_id: str | None = None,
        from_beginning: bool = False,
        forgotten: Literal[False] = False,
    ) -> AsyncGenerator[MemoryEnriched]: ...

    @overload
    def subscribe(
        self,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        group_id: str | None = None,
        from_beginning: bool = False,
        forgotten: Literal[True],
    ) -> AsyncGenerator[Enriched]: ...

    def subscribe(
        self,
        *,
        user_id: str | None = None,
        all_users: bool = False,
        group_id: str | None = None,
        from_beginning: bool = False,
        forgotten: bool = False,
    ) -> AsyncGenerator[Any]:
        """Memories as they are learnt: of one user, or of all where that is said.

        From now on, or `from_beginning`: then everything that Kafka still has, which may hold what was
        revised or forgotten since; its newer state, or its forgetting, comes by later. A memory only gets
        newer: what comes by again, late, or only because its conversation went on, is left out as far as the
        last 10,000 memories tell. With a `group_id` the place is kept, and readers of the same group share the work.
        With `forgotten`, what was forgotten comes by too, as MemoryForgotten and UserForgotten; after a
        user's, a MemoryForgotten of each memory he had.
        """
        if not all_users and not (user_id or "").strip():
            raise Refused("Whose memories? Give user_id=..., or all_users=True.")
        if all_users and user_id is not None:
            raise Refused(
                "Whose memories? user_id=... and all_users=True are two: give one of them."
            )
        return self._learnt(user_id, group_id, from_beginning=from_beginning, forgotten=forgotten)

    async def _learnt(
        self, user_id: str | None, group_id: str | None, *, from_beginning: bool, forgotten: bool
    ) -> AsyncGenerator[Any]:
        topic, passed = ENRICHED.under(self._prefix), Passed()
        # Of what was learnt long ago the last enrichment may be the only one that Kafka still has.
        from_now_on = group_id is None and not from_beginning
        async with following(
            self._connection, topic, group_id=group_id, from_beginning=from_beginning
        ) as consumer:
            async for record in records(consumer, commit=group_id is not None):
                event = enriched_of(record)
                if event is None or (user_id is not None and event.user_id != user_id):
                    continue
                if not passed.is_news(event):
                    continue
                if isinstance(event, MemoryEnriched):
                    self._seen.add(event.user_id, event.memory_id, event.version)
                    if event.context and from_now_on:
                        continue
                if forgotten or isinstance(event, MemoryEnriched):
                    yield event

    # Within

    def _event(self, user_id: str, event_id: UUID, *, after: int = 0) -> dict[str, Any]:
        now = self._clock.next()
        # Another's clock may be ahead. What follows on its memory is newer; our own time stays ours.
        version = max(now, after + 1)
        return {
            "event_id": event_id,
            "user_id": user_id,
            "version": version,
            "published_at": moment_of(now),
        }

    def _captured(self, memory: NewMemory) -> MemoryCaptured:
        key = memory.idempotency_key
        event_id = event_id_of(memory.user_id, key, memory.memory_id) if key else uuid4()
        after = self._seen.newest(memory.user_id, memory.memory_id)
        event = self._event(memory.user_id, event_id, after=after)
        said = memory.model_dump(exclude={"idempotency_key", "memory_id", "occurred_at", "user_id"})
        return MemoryCaptured(
            **event,
            **said,
            memory_id=memory.memory_id or str(event_id),
            occurred_at=memory.occurred_at or event["published_at"],
            if_absent=key is not None,
        )

    def _receipt(
        self,
        event: MemoryCaptured | MemoryRevised | MemoryForgotten,
        *,
        found: bool | None = None,
        was_forgotten: bool = False,
    ) -> Receipt:
        if not isinstance(event, MemoryForgotten):
            self._own[event.user_id, event.memory_id] = event
            if len(self._own) > IN_FLIGHT:
                del self._own[next(iter(self._own))]
        if moment_of(event.version) > event.published_at:
            self._seen.add(event.user_id, event.memory_id, event.version)
        return Receipt(
            user_id=event.user_id,
            memory_id=event.memory_id,
            event_id=event.event_id,
            version=event.version,
            if_absent=isinstance(event, MemoryCaptured) and event.if_absent,
            found=found,
            was_forgotten=was_forgotten,
        ).answered_by(self._receipts)

    async def _publish(self, events: Sequence[tuple[Event, int | None]]) -> None:
        try:
            if self._backlog is not None:
                await self._backlog.admit()
            async with asyncio.timeout(PUBLISH_PATIENCE_S):
                await self._send(events)
        except TimeoutError as error:
            raise Unavailable(
                f"Kafka did not acknowledge within {PUBLISH_PATIENCE_S:g} s. What was sent may still "
                "arrive: repeat it with the same idempotency key or memory id."
            ) from error
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    async def _send(self, events: Sequence[tuple[Event, int | None]]) -> None:
        producer, topic = self._started(), EVENTS.under(self._prefix)
        sent = [
            await producer.send(
                topic,
                value_of(event),
                key=key_of(event),
                partition=partition,
                headers=as_pairs(headers_of(event)),
            )
            for event, partition in events
        ]
        await asyncio.gather(*sent)

    async def _check_topics(self) -> None:
        """Waits a little for the topics: the first stage to start is making them, perhaps."""
        topic = EVENTS.under(self._prefix)
        deadline = asyncio.get_running_loop().time() + TOPICS_PATIENCE_S
        try:
            while topic not in (await self._started().client.fetch_all_metadata()).topics():
                if asyncio.get_running_loop().time() > deadline:
                    raise Refused(
                        f"Kafka at {self._connection.bootstrap_servers} has no topic {topic}. Any "
                        "stage makes the topics: `hybrid-memory up`, or `hybrid-memory run classifier`."
                    )
                await asyncio.sleep(0.2)
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    async def _partitions(self) -> set[int]:
        try:
            return await self._started().partitions_for(EVENTS.under(self._prefix))
        except (KafkaError, OSError) as error:
            raise self._connection.named(error) from error

    def _started(self) -> Any:
        if self._producer is None:
            state = "was closed" if self._entered else "is not connected"
            raise Refused(f"The client {state}: use `async with MemoryClient(...) as memory`.")
        return self._producer

    async def _ask(self, make: Callable[[Envelope], Asked], timeout_s: float) -> Any:
        self._started()
        try:
            return await self._asking.ask(make, timeout_s=timeout_s)
        except ValidationError as error:
            raise Refused(told(error)) from error

    async def _known(
        self, user_id: str, memory_id: str, timeout_s: float, as_of: datetime | None = None
    ) -> MemoryAnswered:
        answered = await self._ask(
            lambda envelope: MemoryAsked(
                **envelope.fields(), user_id=user_id, memory_id=memory_id, as_of=as_of
            ),
            timeout_s,
        )
        assert isinstance(answered, MemoryAnswered)
        held = answered.memory.version if answered.memory else answered.forgotten_until
        if held:
            self._seen.add(user_id, memory_id, held)
        self._let_go(user_id, memory_id, answered)
        return answered

    def _let_go(self, user_id: str, memory_id: str, answered: MemoryAnswered) -> None:
        """What is on its way no more: another client may change it, or forget it, and we hear of neither."""
        own = self._own.get((user_id, memory_id))
        if own is not None and not _is_newer(own, answered):
            del self._own[user_id, memory_id]

    async def _is_there(self, user_id: str, memory_id: str) -> tuple[bool | None, bool]:
        """Whether there is such a memory, or our own on its way, and whether it is forgotten.

        None and False where nobody answers.
        """
        try:
            answered = await self._known(user_id, memory_id, FORGET_PATIENCE_S)
        except Unavailable:
            return True if (user_id, memory_id) in self._own else None, False
        found = answered.memory is not None or (user_id, memory_id) in self._own
        return found, answered.forgotten and not found

    async def _held_of_user(self, user_id: str) -> NewestAnswered | None:
        """What the record holds of the user; None where nobody answers."""
        with suppress(Unavailable):
            return await self._newest_asked(user_id, FORGET_PATIENCE_S)
        return None

    async def _newest_asked(self, user_id: str, timeout_s: float) -> NewestAnswered:
        answered = await self._ask(
            lambda envelope: NewestAsked(**envelope.fields(), user_id=user_id), timeout_s
        )
        assert isinstance(answered, NewestAnswered)
        return answered

    async def _newest(
        self, user_id: str, memory_id: str, timeout_s: float
    ) -> KnownMemory | MemoryCaptured | MemoryRevised:
        """The newest state we can know of: the record's, or our own that is still on its way."""
        now = asyncio.get_running_loop().time
        deadline, look_at, nothing_comes = now() + timeout_s, 0.0, False
        while True:
            answered = await self._known(user_id, memory_id, timeout_s)
            if own := self._own.get((user_id, memory_id)):
                return own
            if answered.memory is not None:
                return answered.memory
            if answered.forgotten:
                raise Refused(f"Memory {memory_id} was forgotten: remember it anew.")
            if nothing_comes or now() > deadline:
                raise Refused(_nothing_to_revise(memory_id, on_its_way=not nothing_comes))
            if now() > look_at:
                nothing_comes = await nothing_on_its_way(self._connection, self._prefix)
                look_at = now() + LOOK_EVERY_S
                continue
            await asyncio.sleep(FIND_PAUSE_S * (1 + random.random()))  # noqa: S311


def _connection_to(kafka: object) -> KafkaConnection:
    connection = kafka if isinstance(kafka, KafkaConnection) else None
    try:
        servers = bootstrap_servers(connection.bootstrap_servers if connection else kafka)
    except ValueError as error:
        raise Refused(f"kafka: {error}") from error
    return connection or KafkaConnection(servers)


def _narrowed(filter: SearchFilter | Where | Mapping[str, Any] | None) -> SearchFilter:
    """The flat form where it is one; what that cannot say is said in the nested one."""
    if isinstance(filter, Where):
        return SearchFilter(where=filter)
    try:
        return SearchFilter.model_validate({} if filter is None else filter)
    except ValidationError as error:
        if not isinstance(filter, Mapping) or "where" in filter or filter.keys() <= _FLAT_ONLY:
            raise Refused(told(error, "filter")) from error
    flat = {name: value for name, value in filter.items() if name in _FLAT_ONLY}
    nested = {name: value for name, value in filter.items() if name not in _FLAT_ONLY}
    try:
        return SearchFilter(**flat, where=Where.model_validate(nested))
    except ValidationError as error:
        raise Refused(told(error, "filter")) from error


def _built(kind: type[Built], **fields: Any) -> Built:
    try:
        return kind(**fields)
    except ValidationError as error:
        raise Refused(told(error)) from error


def _nothing_to_revise(memory_id: str, *, on_its_way: bool) -> str:
    told = f"There is no memory {memory_id} of this user to revise"
    if on_its_way:
        return f"{told} yet. If it was published a moment ago, wait for its receipt first."
    return f"{told}, and none is on its way."


def _is_newer(own: MemoryCaptured | MemoryRevised, held: MemoryAnswered) -> bool:
    """Whether our own event, still on its way, will replace what the record holds."""
    if held.memory is not None:
        return not own.if_absent and own.version > held.memory.version
    yields = held.forgotten and own.if_absent
    return not yields and own.version > held.forgotten_until


def _checked(index: int, memory: NewMemory | Mapping[str, Any]) -> NewMemory:
    if isinstance(memory, NewMemory):
        return memory
    try:
        return NewMemory.model_validate(memory)
    except ValidationError as error:
        raise Refused(f"Memory {index}: {told(error)}. Nothing was published.") from error


def _partly(
    error: Unavailable,
    accepted: list[Receipt],
    memories: Sequence[NewMemory],
    events: Sequence[MemoryCaptured],
) -> PartlyPublished:
    left = [
        memory.model_copy(
            update={
                "occurred_at": event.occurred_at,
                # Under a key the id follows from it; naming it, too, would be another event.
                "memory_id": memory.memory_id if memory.idempotency_key else event.memory_id,
            }
        )
        for memory, event in zip(memories, events, strict=True)
    ]
    why = str(error)
    if any(memory.memory_id is None and memory.idempotency_key is None for memory in memories):
        how = (
            f"give memory_id={left[0].memory_id!r}"
            if len(left) == 1
            else "`remember_many(error.left)`"
        )
        why += f" To repeat it without doubles: {how}."
    return PartlyPublished(why, accepted, left)
