"""What is published in one history, and what must be true when all of it has arrived.

A handful of memories of a few users, the same ids under each, so that everything meets everything. The
oracle says it once more, in its own words: of all that was published, whatever the order, what wins?
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import UUID

from pipeline.domain.clock import moment_of
from pipeline.domain.identity import content_hash, event_id_of
from pipeline.kafka.records import as_pairs, headers_of, key_of, value_of
from schemas.events import (
    MemoryCaptured,
    MemoryEnriched,
    MemoryForgotten,
    MemoryRevised,
    Message,
    Outcome,
    Published,
    UserForgotten,
)
from tests.builders import enriched
from tests.simulation.kafka import home

EPOCH_MS = 1_800_000_000_000
"""When every history begins."""
DAY_US = 86_400_000_000
UNEMBEDDABLE = "unembeddable"
"""Texts that the model makes nothing of, until somebody mends it."""

MemoryId = tuple[str, str]


@dataclass(frozen=True)
class Publication:
    """One record, when and where it is published. `event` is None for what nobody can use."""

    at_s: float
    partition: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    event: Published | MemoryEnriched | None


@dataclass(frozen=True)
class Expected:
    """What both stores hold of one memory in the end."""

    precedence: int
    tie: int
    text: str | None
    """None where it is forgotten."""
    content_hash: str


class History:
    """Draws what is published; `direct` begins behind the embedder."""

    def __init__(self, random: Random, *, partitions: int, events: int, direct: bool) -> None:
        self._random, self._partitions, self._direct = random, partitions, direct
        self._users = ["alice", "bob", "carol"][: random.randint(1, 3)]
        self._ids = [f"m{number}" for number in range(random.randint(1, 4))]
        # A memory may move to another conversation, and out of all of them at the end; m0 is in none.
        self._runs = random.choice([[], [], ["r"], ["r", "s"]])
        if self._runs:
            # Few enough people and memories enough that most conversations have several turns.
            self._users = self._users[:1]
            self._ids = [f"m{number}" for number in range(4)]
        # All at once, so that everything is in flight together, or one after the other.
        self.published_within_s = random.choice([0.2, 2.0, 20.0])
        if self._runs and random.random() < 0.5:
            # So slowly that the turns of a conversation have heard each other before it goes on.
            self.published_within_s = 100.0
        self.publications: list[Publication] = []
        for number in range(events):
            self._publish_one(number)
        if self._runs and random.random() < 0.5:
            self._leave()

    @property
    def events(self) -> list[Any]:
        """What must be in the stores in the end."""
        return [each.event for each in self.publications if each.event is not None]

    @property
    def has_conversations(self) -> bool:
        """Whether some memories are understood by others."""
        return bool(self._runs)

    @property
    def unusable(self) -> set[bytes]:
        """What must be among the dead letters in the end, by its bytes."""
        return {each.value for each in self.publications if each.event is None}

    def _publish_one(self, number: int) -> None:
        match self._random.random():
            case draw if draw < 0.10 and self.publications:
                self._again(self._random.choice(self.publications))
            case draw if draw < 0.15:
                self._poison()
            case draw if draw < 0.24:
                self._forget_user()
            case draw if draw < 0.35:
                self._add(MemoryForgotten(**self._fields()))
            case draw if draw < 0.55:
                self._add(self._state(number, if_absent=True))
            case _:
                self._add(self._state(number, if_absent=False))

    def _leave(self) -> None:
        """When all has been said two still talk, and one of them leaves: nothing changes there any more."""
        leaving, staying = self._random.sample(self._ids, 2)
        run_id = self._random.choice(self._runs)
        says = [(leaving, run_id), (staying, run_id), (leaving, None)]
        for share, (memory_id, run_id) in zip((0.8, 0.9, 1.0), says, strict=True):
            number = len(self.publications)
            version = EPOCH_MS * 1_000 + 2 * number + 2
            told = {"version": version, "published_at": moment_of(version)}
            told |= {"memory_id": memory_id, "run_id": run_id}
            state = self._state(number, if_absent=False).model_copy(update=told)
            self._add(state, at_s=share * self.published_within_s)

    def _state(self, number: int, *, if_absent: bool) -> Published | MemoryEnriched:
        fields = self._fields()
        text = f"{fields['user_id']} said {number}"
        if not self._direct and self._random.random() < 0.1:
            text += f", {UNEMBEDDABLE}"
        if self._runs and fields["memory_id"] != "m0":
            fields["run_id"] = self._random.choice(self._runs)
        if if_absent:
            key = f"key {self._random.randrange(3)}"
            fields["event_id"] = event_id_of(fields["user_id"], key, fields["memory_id"])
            # The same key at another time: no clock gives one version twice.
            fields["version"] = EPOCH_MS * 1_000 + number * 2 + 1
        if self._direct:
            return enriched(text, if_absent=if_absent, topics=(), topic_rows=[], **fields)
        kind = MemoryRevised if not if_absent and self._random.random() < 0.3 else MemoryCaptured
        return kind(text=text, if_absent=if_absent, occurred_at=fields["published_at"], **fields)

    def _fields(self) -> dict[str, Any]:
        return self._who() | {"memory_id": self._random.choice(self._ids)}

    def _who(self) -> dict[str, Any]:
        # Few versions, out of order: events that are late, and events that meet in one microsecond.
        version = EPOCH_MS * 1_000 + self._random.randrange(max(4, 2 * len(self.publications)))
        return {
            "event_id": self._id(),
            "user_id": self._random.choice(self._users),
            "version": version,
            "published_at": moment_of(version),
        }

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def _forget_user(self) -> None:
        told = UserForgotten(**self._who(), partition=0, partitions=self._partitions)
        for partition in range(self._partitions):
            self._add(told.model_copy(update={"partition": partition}))

    def _poison(self) -> None:
        if self._random.random() < 0.5:
            junk = self._random.randbytes(8)
            place = self._random.randrange(self._partitions)
            self.publications.append(Publication(self._moment_s(), place, b"k", junk, (), None))
            return
        # From a clock that is a year ahead: nobody could revise it.
        version = EPOCH_MS * 1_000 + 365 * DAY_US
        ahead = self._state(10_000, if_absent=False).model_copy(update={"version": version})
        self._add(ahead, usable=False)

    def _add(self, event: Any, *, usable: bool = True, at_s: float | None = None) -> None:
        place = home(key_of(event), self._partitions)
        if isinstance(event, UserForgotten):
            place = event.partition
        elif self._random.random() < 0.05:
            # As after partitions were added: the key is not where it was.
            place = self._random.randrange(self._partitions)
        self.publications.append(
            Publication(
                at_s=self._moment_s() if at_s is None else at_s,
                partition=place,
                key=key_of(event),
                value=value_of(event),
                headers=as_pairs(headers_of(event)),
                event=event if usable else None,
            )
        )

    def _again(self, publication: Publication) -> None:
        """The same bytes once more, perhaps much later."""
        self.publications.append(replace(publication, at_s=self._moment_s()))

    def _moment_s(self) -> float:
        return self._random.uniform(0, self.published_within_s)


def expected(events: Sequence[Any]) -> dict[MemoryId, Expected]:
    """The state of each memory that wins among all that was published."""
    watermarks = expected_watermarks(events)
    states: dict[MemoryId, list[Expected]] = defaultdict(list)
    for event in events:
        if isinstance(event, UserForgotten):
            continue
        mark = watermarks.get(event.user_id, 0)
        states[event.user_id, event.memory_id].append(
            _as_expected(event) if event.version > mark else Expected(mark, 2**52 - 1, None, "")
        )
    return {
        memory: max(those, key=lambda each: (each.precedence, each.tie))
        for memory, those in states.items()
    }


def expected_outcome(
    event: Any, states: Mapping[MemoryId, Expected], watermarks: Mapping[str, int]
) -> Outcome:
    """What became of one event among all that was published."""
    if isinstance(event, UserForgotten):
        return "stored"
    if event.version <= watermarks.get(event.user_id, 0):
        return "forgotten"
    won, own = states[event.user_id, event.memory_id], _as_expected(event)
    if (own.precedence, own.tie) == (won.precedence, won.tie):
        return "stored"
    return "forgotten" if won.text is None else "superseded"


def expected_watermarks(events: Sequence[Any]) -> dict[str, int]:
    """Up to which version each user was forgotten."""
    watermarks: dict[str, int] = {}
    for event in events:
        if isinstance(event, UserForgotten):
            watermarks[event.user_id] = max(event.version, watermarks.get(event.user_id, 0))
    return watermarks


def _as_expected(event: Message) -> Expected:
    assert isinstance(event, MemoryForgotten | MemoryCaptured | MemoryRevised | MemoryEnriched)
    tie = event.event_id.int % 2**52
    if isinstance(event, MemoryForgotten):
        return Expected(event.version, tie, None, "")
    precedence = -event.version if event.if_absent else event.version
    return Expected(precedence, tie, event.text, content_hash(event))
