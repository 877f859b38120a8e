"""The command line without a stream: a client that keeps memories in a dict."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli.commands import app
from pipeline.domain.clock import VersionClock
from pipeline.errors import Missing, Unavailable, Unusable
from producers.client import NewMemory
from producers.receipts import AnyReceipt, Receipt, UserReceipt
from schemas.events import (
    MemoryEnriched,
    MemoryForgotten,
    Outcome,
    SparseVector,
    UserForgotten,
    Vectors,
)
from schemas.search import CountsAnswered, Hit, RecordedMemory, SearchAnswered

ADDRESSES = ("KAFKA_BOOTSTRAP_SERVERS", "POSTGRES_DSN", "QDRANT_URL", "REDIS_URL", "TOPIC_PREFIX")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class FakeClient:
    """Keeps what is remembered; finds what shares a word with the question."""

    def __init__(self) -> None:
        self.memories: dict[tuple[str, str], NewMemory] = {}
        self.known: dict[str, Any] = {}
        """What the record knows of every memory beside what was said."""
        self.forgotten: set[tuple[str, str]] = set()
        self.asked: dict[str, Any] = {}
        """What was asked last."""
        self.searched: list[dict[str, Any]] = []
        self.as_of: datetime | None = None
        self.batches: list[list[NewMemory]] = []
        self.waited_for: list[AnyReceipt] = []
        self.set_aside: dict[str, str] = {}
        """Reasons, by memory id."""
        self.outcomes: dict[str, Outcome] = {}
        """What becomes of what is published, by memory id; stored unless said."""
        self.is_late = False
        """Whether nothing is stored in time."""
        self.passing: list[Any] = []
        """What a subscriber sees."""
        self.degraded: str | None = None
        """What a search could not do."""
        self.goes_away_after: int | None = None
        """Batches that Kafka takes."""
        self.goes_away_within = False
        """Whether Kafka takes a batch and does not say so any more."""
        self.first: dict[str, int] = {}
        """The version under which each memory was remembered first, which stays under an idempotency key."""
        self._clock = VersionClock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def remember(self, text: str, **fields: Any) -> Receipt:
        (receipt,) = await self.remember_many([NewMemory(text=text, **fields)])
        return receipt

    async def remember_many(
        self, memories: Iterable[NewMemory], *, versions: Sequence[int] | None = None
    ) -> list[Receipt]:
        batch = list(memories)
        at = [self._clock.next() for _ in batch] if versions is None else versions
        if self.goes_away_after is not None and len(self.batches) >= self.goes_away_after:
            raise Unavailable("Kafka is away.")
        self.batches.append(batch)
        receipts = [self._remembered(m, v) for m, v in zip(batch, at, strict=True)]
        if self.goes_away_within:
            raise Unavailable("Kafka went away before it acknowledged.")
        return receipts

    async def revise(self, memory_id: str, text: str, *, user_id: str, **_: Any) -> Receipt:
        if (user_id, memory_id) not in self.memories:
            raise Missing(f"There is no memory {memory_id} of this user to revise.")
        memory = self.memories[user_id, memory_id]
        return self._remembered(memory.model_copy(update={"text": text}))

    async def forget(self, memory_id: str, *, user_id: str) -> Receipt:
        key = (user_id, memory_id)
        found, before = self.memories.pop(key, None) is not None, key in self.forgotten
        self.forgotten.add(key)
        receipt = self._receipt(user_id, memory_id, found=found)
        return receipt.model_copy(update={"was_forgotten": before})

    async def forget_user(self, user_id: str) -> UserReceipt:
        count = await self.count(user_id=user_id)
        for key in [key for key in self.memories if key[0] == user_id]:
            del self.memories[key]
        receipt = UserReceipt(
            user_id=user_id,
            event_id=uuid4(),
            version=self._clock.next(),
            partitions=2,
            memories=count,
        )
        return receipt.answered_by(self)  # pyright: ignore[reportArgumentType]

    async def count(self, *, user_id: str) -> int:
        return sum(user == user_id for user, _ in self.memories)

    async def get(
        self, memory_id: str, *, user_id: str, as_of: datetime | None = None
    ) -> RecordedMemory | None:
        self.as_of = as_of
        memory = self.memories.get((user_id, memory_id))
        if memory is None:
            return None
        said = memory.model_dump(exclude={"user_id", "occurred_at"})
        known = {**said, "occurred_at": NOON, "version": 1, "domain": "other", **self.known}
        return RecordedMemory.model_validate(known)

    async def search(self, text: str, *, user_id: str, **asked: Any) -> SearchAnswered:
        self.asked = {"text": text, "user_id": user_id, **asked}
        self.searched.append(self.asked)
        words = set(text.lower().split())
        found = [
            memory
            for memory in self.memories.values()
            if memory.user_id == user_id
            and (words & set(memory.text.lower().split()) or asked.get("mode") == "dense")
            and memory.speaker == (asked["filter"]["speaker"] or memory.speaker)
        ]
        hits = tuple(
            Hit(
                memory_id=memory.memory_id or "",
                text=memory.text,
                speaker=memory.speaker,
                score=0.5,
                occurred_at=NOON,
                domain="other",
                topics=("food",),
                version=1,
            )
            for memory in found
        )
        return SearchAnswered(
            question_id=uuid4(),
            hits=hits,
            took_ms=5.0,
            embed_ms=3.0,
            search_ms=1.0,
            degraded=self.degraded,
        )

    async def counts(self, *, timeout_s: float) -> CountsAnswered:
        return CountsAnswered(
            question_id=uuid4(), record=len(self.memories), index=len(self.memories)
        )

    async def stored(
        self,
        receipts: Sequence[AnyReceipt],
        *,
        timeout_s: float,
        on_progress: Callable[[int], None] = lambda _: None,
        on_set_aside: Callable[[AnyReceipt, Unusable], None] | None = None,
    ) -> list[Outcome | None]:
        self.waited_for += receipts
        if self.is_late:
            raise Unavailable(f"not stored within {timeout_s:g} s")
        for receipt in receipts:
            reason = self.set_aside.get(receipt.event.memory_id or "")
            if reason is not None and on_set_aside is None:
                raise Unusable(reason)
            if reason is not None and on_set_aside is not None:
                on_set_aside(receipt, Unusable(reason))
        on_progress(len(receipts))
        ids = [receipt.event.memory_id or "" for receipt in receipts]
        states: list[Outcome] = [
            "stored" if self.first.get(i, r.version) == r.version else "superseded"
            for i, r in zip(ids, receipts, strict=True)
        ]
        return [
            None if i in self.set_aside else self.outcomes.get(i, state)
            for i, state in zip(ids, states, strict=True)
        ]

    async def wait(
        self, receipts: Sequence[AnyReceipt], *, timeout_s: float
    ) -> list[Outcome | None]:
        """As a receipt asks."""
        return await self.stored(receipts, timeout_s=timeout_s)

    async def subscribe(self, **asked: Any) -> AsyncGenerator[Any]:
        self.asked = asked
        for event in self.passing:
            if isinstance(event, MemoryEnriched) or asked["forgotten"]:
                yield event

    def _remembered(self, memory: NewMemory, version: int | None = None) -> Receipt:
        memory_id = memory.memory_id or str(uuid4())
        version = version or self._clock.next()
        if memory.idempotency_key is not None:
            self.first.setdefault(memory_id, version)
        kept = memory.model_copy(update={"memory_id": memory_id})
        self.memories[memory.user_id, memory_id] = kept
        return self._receipt(memory.user_id, memory_id, version=version)

    def _receipt(
        self,
        user_id: str,
        memory_id: str,
        *,
        found: bool | None = None,
        version: int | None = None,
    ) -> Receipt:
        receipt = Receipt(
            user_id=user_id,
            memory_id=memory_id,
            event_id=uuid4(),
            version=version or self._clock.next(),
            found=found,
        )
        return receipt.answered_by(self)  # pyright: ignore[reportArgumentType]


Command = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where nothing runs and nothing is set."""
    for variable in (*ADDRESSES, "HYBRID_MEMORY_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HYBRID_MEMORY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(home: Path) -> Command:
    """`command("add", "...")` as in a shell; nothing runs there."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin)

    return invoke


@pytest.fixture
def client(command: Command, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that every command gets."""

    async def same_cluster(_: object) -> str:
        return "cluster"

    def same_client(*_: object, **__: object) -> FakeClient:
        return fake

    fake = FakeClient()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.example:9092")
    monkeypatch.setattr("producers.client.MemoryClient", same_client)
    monkeypatch.setattr("pipeline.kafka.cluster.cluster_id", same_cluster)
    return fake


def enriched(text: str, **fields: Any) -> MemoryEnriched:
    """An event as it goes by on memory.enriched."""
    none = Vectors(dtype="float32", shape=(0, 4), data=b"")
    defaults: Mapping[str, Any] = {
        "event_id": uuid4(),
        "user_id": "alice",
        "memory_id": "m1",
        "version": 1,
        "published_at": NOON,
        "occurred_at": NOON,
        "domain": "other",
        "topics": ("food",),
        "model": "m",
        "text_vector": none,
        "token_vectors": none,
        "topic_vectors": none,
        "lexical_vector": SparseVector(),
    }
    return MemoryEnriched(text=text, **{**defaults, **fields})


def forgotten(memory_id: str) -> MemoryForgotten:
    return MemoryForgotten(
        event_id=uuid4(), user_id="alice", memory_id=memory_id, version=2, published_at=NOON
    )


def user_forgotten(partition: int) -> UserForgotten:
    return UserForgotten(
        event_id=uuid4(),
        user_id="alice",
        version=3,
        published_at=NOON,
        partition=partition,
        partitions=2,
    )
