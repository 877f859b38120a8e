"""What was acknowledged, against what the record, the index and the log hold. Pure.

The words are those of Kafka's checkers:

    lost         acknowledged, and a store does not have it; or set aside for no reason of ours; or a
                 recall that counts nowhere
    duplicated   there twice: in a store, or in the log more often than it was sent
    stale        a store has another state than the newest that was acknowledged; or understands it by
                 other texts than those beside it; or tells that it stands elsewhere by its use
    resurrected  forgotten or never acknowledged, and a store has it, or its life
    unseen       acknowledged, and no notice told that a store has done with it

Which state is the newest is worked out here anew, from the design and not from the stores' code.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pipeline.chaos.conversations import Talk, unheard
from pipeline.chaos.finding import WORDS, Finding, MemoryName, Word, named
from pipeline.chaos.lives import Use, unlived

STORES = ("record", "index")
POISON_KEY = "poison "
"""What the key of every poison record begins with; no memory's does."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One event that was acknowledged."""

    event_id: UUID
    user_id: str
    memory_id: str | None
    """None: it forgot the whole user."""
    version: int
    content: str | None
    """The hash of what it says; None where it forgets."""
    yields: bool = False
    """Published under an idempotency key."""
    parts: int = 0
    """Of the forgetting of a user: how many partitions got a copy."""
    refused: bool = False
    """The embedder must have set it aside."""


@dataclass(frozen=True, slots=True)
class Held:
    """One memory as a store holds it; without content it is a tombstone."""

    user_id: str
    memory_id: str
    content: str | None


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: who set it aside, and what it was."""

    stage: str
    key: str
    event_id: UUID | None
    reason: str


@dataclass(frozen=True)
class Seen:
    """Everything that was read at the end."""

    stores: Mapping[str, Sequence[Held]]
    """By store."""
    logged: Mapping[UUID, int]
    """How many records of each event are in the log of events."""
    notices: frozenset[tuple[UUID, str, int]]
    """Event, store, partition (0 for a memory)."""
    letters: Sequence[Letter]
    talk: Talk = field(default_factory=Talk)
    use: Use = field(default_factory=Use)


@dataclass(frozen=True)
class Told:
    """Everything that was published."""

    facts: Sequence[Fact]
    sent: Mapping[UUID, int]
    """How many records of each event were sent, those without an answer too."""
    poison: frozenset[tuple[str, str]]
    """The key of each poison record, and each stage that must have set it aside."""


@dataclass(frozen=True)
class Verdict:
    """What must not be, and what was compared."""

    findings: Sequence[Finding]
    memories: int
    """That were to be alive."""
    forgotten: int
    dead_letters: int
    turns: int
    """Memories whose conversation was compared with what they have heard."""
    lives: int
    """Memories that were recalled."""
    counts: Mapping[Word, int] = field(init=False)

    def __post_init__(self) -> None:
        found = Counter(finding.word for finding in self.findings)
        object.__setattr__(self, "counts", {word: found[word] for word in WORDS})


def judged(told: Told, seen: Seen) -> Verdict:
    """Compares everything with everything."""
    wanted = newest(told.facts)
    findings = [
        *(f for store in STORES for f in _store(store, wanted, seen.stores[store])),
        *_log(told.sent, seen.logged, told.facts),
        *_notices(told.facts, seen.notices),
        *_letters(told, seen.letters),
        *unheard(seen.talk),
        *unlived(seen.use, wanted),
    ]
    alive = sum(content is not None for content in wanted.values())
    return Verdict(
        findings,
        alive,
        len(wanted) - alive,
        len(seen.letters),
        len(seen.talk.turns),
        len(seen.use.in_record),
    )


def newest(facts: Iterable[Fact]) -> dict[MemoryName, str | None]:
    """The state that every store must end with, by memory: its content, None where it is forgotten."""
    kept = [fact for fact in facts if not fact.refused]
    erased: dict[str, int] = {}
    for fact in kept:
        if fact.memory_id is None:
            erased[fact.user_id] = max(erased.get(fact.user_id, 0), fact.version)
    best: dict[MemoryName, tuple[int, str | None]] = {}
    for fact in kept:
        if fact.memory_id is not None:
            state = _state(fact, erased.get(fact.user_id, 0))
            name = (fact.user_id, fact.memory_id)
            best[name] = max(best.get(name, state), state, key=lambda known: known[0])
    return {name: content for name, (_, content) in best.items()}


def _state(fact: Fact, erased: int) -> tuple[int, str | None]:
    """What a fact leaves: its rank, the greatest wins, and its content."""
    if fact.version <= erased:
        return erased, None
    # Under an idempotency key the first one wins, and any other state wins over it.
    return -fact.version if fact.yields else fact.version, fact.content


def _store(
    store: str, wanted: Mapping[MemoryName, str | None], held: Iterable[Held]
) -> Iterable[Finding]:
    there: dict[MemoryName, list[Held]] = defaultdict(list)
    for one in held:
        there[one.user_id, one.memory_id].append(one)
    for name, ones in there.items():
        if len(ones) > 1:
            yield Finding("duplicated", store, f"{named(name)} is there {len(ones)} times")
        alive = [one.content for one in ones if one.content is not None]
        content = wanted.get(name)
        if alive and content is None:
            yield Finding("resurrected", store, named(name))
        elif alive and set(alive) != {content}:
            yield Finding("stale", store, f"{named(name)} has not its newest state")
    for name, content in wanted.items():
        if content is not None and not any(one.content is not None for one in there.get(name, ())):
            yield Finding("lost", store, named(name))


def _log(
    sent: Mapping[UUID, int], logged: Mapping[UUID, int], facts: Iterable[Fact]
) -> Iterable[Finding]:
    for event_id, times in logged.items():
        # Of those that were never acknowledged nobody knows how often they are there.
        if event_id in sent and times > sent[event_id]:
            yield Finding("duplicated", "log", f"{event_id}: {times} times, sent {sent[event_id]}")
    for event_id in {fact.event_id for fact in facts} - logged.keys():
        yield Finding("lost", "log", str(event_id))


def _notices(facts: Iterable[Fact], notices: frozenset[tuple[UUID, str, int]]) -> Iterable[Finding]:
    for event_id, parts in {
        fact.event_id: fact.parts for fact in facts if not fact.refused
    }.items():
        missing = [
            store
            for store in STORES
            if any((event_id, store, part) not in notices for part in range(max(1, parts)))
        ]
        if missing:
            yield Finding("unseen", " and ".join(missing), str(event_id))


def _letters(told: Told, letters: Sequence[Letter]) -> Iterable[Finding]:
    """Each poison record and each refused text has its letter, and nothing else has one."""
    refused = {fact.event_id for fact in told.facts if fact.refused}
    for key, stage in told.poison - {(letter.key, letter.stage) for letter in letters}:
        yield Finding("lost", "dead letters", f"{key} at {stage}")
    for event_id in refused - {letter.event_id for letter in letters if letter.stage == "embedder"}:
        yield Finding("lost", "dead letters", f"refused text {event_id}")
    for letter in letters:
        if not letter.key.startswith(POISON_KEY) and letter.event_id not in refused:
            what = f"{letter.event_id or letter.key} set aside at {letter.stage}: {letter.reason}"
            yield Finding("lost", "dead letters", what[:300])
