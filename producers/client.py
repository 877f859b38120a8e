"""Applications -> memory.events: remember, revise, forget; and search by question and answer.

This is what applications import. It needs neither a model nor a database driver: it speaks Kafka.

    async with MemoryClient("localhost:9092") as memory:
        receipt = await memory.remember("I love spicy Thai food", user_id="alice")
        await receipt.stored(timeout_s=30)  # "stored", "superseded" or "forgotten"
        answer = await memory.search("dinner ideas", user_id="alice")
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Literal, Self, overload
from uuid import uuid4

from pydantic import ValidationError

from pipeline.domain.telling import told
from pipeline.errors import Refused, Unavailable, Unusable
from pipeline.kafka.addresses import bootstrap_servers
from pipeline.kafka.asking import Asking, Envelope
from pipeline.kafka.connection import KafkaConnection
from producers.backlog import Backlog, check_limit, nothing_on_its_way
from producers.conversation import Conversation
from producers.drafts import Drafts
from producers.knowing import Known
from producers.logs import log_as_the_application_does
from producers.moments import GivenMoment, moment
from producers.narrowing import narrowed
from producers.new_memory import (
    NewMemory,
    PartlyPublished,
    built,
    checked,
    checked_versions,
    partly_published,
)
from producers.publishing import Publisher
from producers.receipts import TOKEN, AnyReceipt, OfMemory, Receipt, UserReceipt
from producers.seen import Seen
from producers.subscribing import learnt
from producers.waiting import Receipts
from producers.watch import raising
from schemas.events import Enriched, MemoryEnriched, Outcome, Said
from schemas.filters import Where
from schemas.search import (
    Asked,
    CountsAnswered,
    CountsAsked,
    Mode,
    RecordedMemory,
    SearchAnswered,
    SearchAsked,
    SearchFilter,
)

__all__ = ["MemoryClient", "NewMemory", "PartlyPublished"]

IN_FLIGHT = 1_000
"""Events that are sent before their acknowledgements are awaited."""


class MemoryClient:
    """The memory of many users, over Kafka.

    Every method may raise Unavailable (Kafka, or who should answer, is away: try again) and Refused (the
    call cannot be right: the message says why). When a method that publishes returns, Kafka has the
    event on all its in-sync replicas, and nothing accepted is lost. A moment is a `datetime` with a zone, or
    text in ISO 8601, which is UTC unless it has an offset.

    `kafka` is host:port, several separated by commas. A client is for one `async with`. With
    `most_behind`, 1 or more, no more is published than keeps the stages at most so many events behind,
    looked at once a second: beyond it publishing waits, or raises Unavailable where `when_behind` is
    "refuse". It waits for as long as the stages need: for ever where they are down. Put an
    `asyncio.timeout` around it; the log tells every 30 s.
    """

    def __init__(
        self,
        kafka: str | KafkaConnection = "localhost:9092",
        *,
        prefix: str = "memory",
        most_behind: int | None = None,
        when_behind: Literal["wait", "refuse"] = "wait",
    ) -> None:
        check_limit(most_behind, when_behind)
        self._connection = _connection_to(kafka)
        self._prefix = prefix
        self._seen = Seen()
        self._drafts = Drafts(self._seen)
        self._known = Known(
            self._seen, self._ask, partial(nothing_on_its_way, self._connection, prefix)
        )
        self._stack = AsyncExitStack()
        self._entered = False
        backlog = (
            None
            if most_behind is None
            else Backlog(self._connection, prefix, most=most_behind, when_full=when_behind)
        )
        self._publisher = Publisher(self._connection, prefix, backlog)
        self._asking = Asking(self._connection, prefix)
        self._receipts = Receipts(self._connection, prefix, self._asking)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise Refused(
                "This client has had its `async with`: go on with it inside, or make another one with "
                "`MemoryClient(...)`."
            )
        self._entered = True
        log_as_the_application_does()
        try:
            await self._publisher.start()
        except BaseException:
            # Nothing came of it: the same client may try again.
            self._entered = False
            raise
        self._stack.push_async_callback(self._publisher.close)
        self._stack.push_async_callback(self._asking.close)
        self._stack.push_async_callback(self._receipts.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # Publishing

    async def remember(
        self,
        text: str,
        *,
        user_id: str,
        memory_id: str | None = None,
        occurred_at: GivenMoment | None = None,
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
        who publishes, and what was forgotten since stays so. Another key is another memory, unless
        `memory_id` names one: then the text is remembered only where no such memory is, or ever was. The
        receipt's outcome tells.
        """
        memory = built(
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
        self,
        memories: Iterable[NewMemory | Mapping[str, Any]],
        *,
        versions: Sequence[int] | None = None,
    ) -> list[Receipt]:
        """Remembers many texts, in order, without waiting for each.

        All are checked before the first is published: Refused names the one that is wrong, and then
        nothing was published. Give a few thousand at a time: it keeps one receipt for each. Where Kafka goes
        away in between it raises PartlyPublished, an Unavailable that tells what is left.

        `versions`, one for each in microseconds since 1970, stand in for the clock. Who writes them down
        before can publish the very same events again after a crash: with its idempotency key and its
        version each is still the first one, and its receipt says so.
        """
        given = [checked(index, memory) for index, memory in enumerate(memories)]
        at = checked_versions(given, versions)
        events = [self._drafts.captured(memory, v) for memory, v in zip(given, at, strict=True)]
        receipts: list[Receipt] = []
        while left := events[len(receipts) :]:
            try:
                some = left[: await self._publisher.admitted(min(IN_FLIGHT, len(left)))]
                await self._publisher.publish([(event, None) for event in some])
            except Unavailable as error:
                raise partly_published(error, receipts, given[len(receipts) :], left) from error
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
        self._publisher.started()
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
        occurred_at: GivenMoment | None = None,
        timeout_s: float = 10.0,
    ) -> Receipt:
        """Replaces the text of a memory; what is not given stays as it was.

        The memory's newest state is asked for first, so a query consumer must be running. Waits up to
        `timeout_s` for a memory that may still be on its way. Raises Missing, which is a Refused, where there is none.
        """
        said = built(
            NewMemory, text=text, user_id=user_id, memory_id=memory_id, occurred_at=occurred_at
        )
        known = await self._known.newest(said.user_id, memory_id, timeout_s)
        event = self._drafts.revised(said, known, metadata=metadata)
        await self._publisher.admitted(1)
        await self._publisher.publish([(event, None)])
        return self._receipt(event)

    async def forget(self, memory_id: str, *, user_id: str) -> Receipt:
        """Forgets one memory, for good: older events that arrive late do not bring it back.

        Asks first what there is: the receipt's `found` tells whether there was such a memory, and the
        forgetting is newer than that by whatever clock. It is published in any case: a memory that is
        on its way stays forgotten. Where nobody answers within 2 s, `found` is None. `was_forgotten`
        tells what was forgotten before from what nobody knows.
        """
        found, was_forgotten = await self._known.is_there(user_id, memory_id)
        event = self._drafts.forgotten(user_id, memory_id)
        self._known.forgets(user_id, memory_id)
        await self._publisher.admitted(1)
        await self._publisher.publish([(event, None)])
        return self._receipt(event, found=found, was_forgotten=was_forgotten)

    async def forget_user(self, user_id: str) -> UserReceipt:
        """Forgets everything of one user up to now. What is remembered later stays.

        Asks first how new the newest memory of the user is, so that what a clock ahead of ours has
        remembered goes, too. Where nobody answers within 2 s, what such a clock has remembered stays,
        unless this client has seen it; what is not in the record yet stays in any case. The receipt's
        `memories` tells how many there were, 0 for a user nobody knows: that is no error.
        """
        held = await self._known.held_of_user(user_id)
        partitions = await self._publisher.partitions()
        events = self._drafts.user_forgotten(
            user_id, after=held.version if held else 0, partitions=partitions
        )
        self._known.forgets_user(user_id)
        await self._publisher.admitted(1)
        # One copy on each partition: there it stands behind all that it must outlive.
        await self._publisher.publish([(event, event.partition) for event in events])
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
        as_of: GivenMoment | None = None,
        timeout_s: float = 10.0,
    ) -> SearchAnswered:
        """The user's memories that answer `text` best, best first.

        `mode` finds by meaning and by words ("hybrid"), by meaning alone ("dense") or by words alone
        ("lexical"). `limit` is 1 to 100; `min_score` leaves out what scores less: a cosine where the mode
        is dense, otherwise what all signals weigh together, 1 where everything speaks for a memory.
        `rerank` has the best hits read again together with the question, or not; unless given, where
        RERANKER_MODEL is set for the query consumer. `diversity`, 0 to 1, prefers hits that are unlike
        better ones. The answer's `degraded` says what could not be done of that. With
        `explain` each hit tells what every signal gave and added to the score, and which words matched, in it
        (`matched`) and in its day (`matched_day`); where there are none of both, what `lexical` gave comes
        from what was said beside it.
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
        narrow = narrowed(filter)
        answered = await self._ask(
            lambda envelope: SearchAsked(
                **envelope.fields(),
                user_id=user_id,
                text=text,
                limit=limit,
                min_score=min_score,
                filter=narrow,
                mode=mode,
                rerank=rerank,
                diversity=diversity,
                explain=explain,
                recall=recall,
                use_classifiers=use_classifiers,
                as_of=moment(as_of),
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
        as_of: GivenMoment | None = None,
        timeout_s: float = 10.0,
    ) -> RecordedMemory | None:
        """The newest state of a memory; None where there is none, or it was forgotten.

        With `as_of` the state that it had at that moment.
        """
        return (await self._known.recorded(user_id, memory_id, timeout_s, moment(as_of))).memory

    async def count(self, *, user_id: str, timeout_s: float = 10.0) -> int | None:
        """How many memories of a user the record holds; None where a desk of an earlier version is asked."""
        return (await self._known.recorded_of_user(user_id, timeout_s)).memories

    async def counts(self, *, timeout_s: float = 10.0) -> CountsAnswered:
        """How many memories each store holds, of all users: an operator's question."""
        answered = await self._ask(lambda envelope: CountsAsked(**envelope.fields()), timeout_s)
        assert isinstance(answered, CountsAnswered)
        return answered

    def receipt(self, token: str) -> Receipt | UserReceipt:
        """A receipt from another process, or of a client that was closed, by its token."""
        self._publisher.started()
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
        return learnt(
            self._connection,
            self._prefix,
            self._seen,
            user_id=user_id,
            group_id=group_id,
            from_beginning=from_beginning,
            forgotten=forgotten,
        )

    # Within

    def _receipt(
        self, event: OfMemory, *, found: bool | None = None, was_forgotten: bool = False
    ) -> Receipt:
        self._known.published(event)
        receipt = Receipt.of(event, found=found, was_forgotten=was_forgotten)
        return receipt.answered_by(self._receipts)

    async def _ask(self, make: Callable[[Envelope], Asked], timeout_s: float) -> Any:
        self._publisher.started()
        try:
            return await self._asking.ask(make, timeout_s=timeout_s)
        except ValidationError as error:
            raise Refused(told(error)) from error


def _connection_to(kafka: object) -> KafkaConnection:
    connection = kafka if isinstance(kafka, KafkaConnection) else None
    try:
        servers = bootstrap_servers(connection.bootstrap_servers if connection else kafka)
    except ValueError as error:
        raise Refused(f"kafka: {error}") from error
    return connection or KafkaConnection(servers)
