"""seed -> what is published, and which fault strikes when. Pure: the same seed is the same plan.

The events are cut into as many slices as there are faults. While a slice is published its fault strikes,
so each one finds something in flight however fast or slow the machine is.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, pairwise
from typing import Literal

ROLES = (
    "classifier",
    "embedder",
    "record_writer",
    "vector_writer",
    "contextualizer",
    "lifecycle",
    "tier_writer",
)
"""Each is killed while its own work is in flight, whoever shares a process with it."""
ROUNDS = 3
"""How often each role is killed in the full form."""
DISK = "disk"

Manner = Literal["killed", "stopped", "paused", "stalled", "cut off", "full"]
PART_MANNERS: tuple[Manner, ...] = ("killed", "stopped", "paused", "stalled", "cut off")

Kind = Literal[
    "captured",
    "overwritten",
    "revised",
    "forgotten",
    "user forgotten",
    "keyed",
    "repeated",
    "raw",
    "strange",
    "again",
    "asked",
    "refused",
    "poison",
]
WEIGHTS: dict[Kind, float] = {
    "captured": 58,
    "overwritten": 8,
    "revised": 5,
    "forgotten": 6,
    "user forgotten": 0.3,
    "keyed": 5,
    "repeated": 4,
    "raw": 5,
    "strange": 2,
    "again": 4,
    "asked": 8,
    "refused": 1,
    "poison": 2,
}
POISONED = ("events", "classified", "enriched", "stored", "recalled", "tiered")
REFUSED_MARK = "[a text that the model refuses]"
"""What the embedder of a chaos stack cannot use."""

_RECENT = 3
_IN_CONVERSATION = 0.35
"""Of what is new. The others stand alone."""
_TURNS = 6
"""Memories of a conversation, then there is another one."""
_SUBJECTS = (
    "the parser,our supplier,Amara,the night shift,my sister,the invoice,the cluster,a customer"
)
_VERBS = "was late for,asked about,prefers,broke,moved to,signed off,forgot,paid for,reviewed"
_OBJECTS = (
    "the harbour office,a spicy soup,the quarterly report,module seven,the old bicycle,Lisbon"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to publish. `number` makes its text its own: no two states of anything are equal."""

    number: int
    kind: Kind
    user_id: str = ""
    memory_id: str = ""
    key: str | None = None
    """The idempotency key of `keyed` and `repeated`."""
    of: int | None = None
    """The number of the raw event whose bytes come `again`."""
    topic: str = ""
    """Where `poison` goes."""
    text: str = ""
    run_id: str | None = None
    """The conversation that the memory belongs to, in all its states."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to whom, a role or a part; `seconds` is how long where it lasts."""

    manner: Manner
    target: str
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.target} {self.manner}"


@dataclass(frozen=True)
class ChaosPlan:
    """All that will happen. Slice i of the events is published while fault i strikes."""

    seed: int
    brokers: int
    faults: Sequence[Fault]
    slices: Sequence[Sequence[Step]] = field(repr=False)

    @property
    def events(self) -> int:
        return sum(map(len, self.slices))


def planned(seed: int, *, events: int, brokers: int = 1, brief: bool = False) -> ChaosPlan:
    """The plan of a seed. `brief` has each kind of fault once, else every target has every one."""
    # Apart, so that another number of events leaves the faults as they are.
    faults = list(_faults(random.Random(f"faults {seed}"), brokers, brief=brief))  # noqa: S311
    steps = list(_steps(random.Random(f"events {seed}"), events))  # noqa: S311
    bounds = [len(steps) * i // len(faults) for i in range(len(faults) + 1)]
    slices = [steps[begin:end] for begin, end in pairwise(bounds)]
    return ChaosPlan(seed, brokers, faults, slices)


def nodes(brokers: int) -> list[str]:
    """The names of Kafka's nodes, as the embedded stack gives them."""
    return ["kafka", *(f"kafka-{number}" for number in range(2, brokers + 1))]


def _faults(rng: random.Random, brokers: int, *, brief: bool) -> Iterator[Fault]:
    rounds = 1 if brief else ROUNDS
    others = _brief(rng, brokers) if brief else _every(rng, brokers)
    rng.shuffle(others)
    for number in range(rounds):
        mixed = [Fault("killed", role) for role in ROLES] + others[number::rounds]
        rng.shuffle(mixed)
        yield from mixed


def _every(rng: random.Random, brokers: int) -> list[Fault]:
    each_node = cycle(rng.sample(nodes(brokers), brokers))
    faults = [
        _fault(rng, manner, target, (2.0, 6.0))
        for manner in PART_MANNERS
        for target in (next(each_node), "postgres", "valkey")
    ]
    if brokers > 1:
        faults += [Fault("killed", node) for node in nodes(brokers)]
    return [*faults, Fault("full", DISK, 4.0)]


def _brief(rng: random.Random, brokers: int) -> list[Fault]:
    """Each manner once, on parts in turn, and each part at least once."""
    targets = cycle(rng.sample([rng.choice(nodes(brokers)), "postgres", "valkey"], 3))
    faults = [
        _fault(rng, manner, next(targets), (1.0, 2.5))
        for manner in rng.sample(PART_MANNERS, len(PART_MANNERS))
    ]
    return [*faults, Fault("full", DISK, 2.0)]


def _fault(rng: random.Random, manner: Manner, target: str, seconds: tuple[float, float]) -> Fault:
    lasts = manner not in ("killed", "stopped")
    return Fault(manner, target, round(rng.uniform(*seconds), 1) if lasts else 0.0)


@dataclass
class _User:
    """What the plan knows of one user's memories."""

    name: str
    alive: list[str] = field(default_factory=list[str])
    recent: list[str] = field(default_factory=list[str])
    keyed: list[str] = field(default_factory=list[str])
    raw: list[Step] = field(default_factory=list[Step])
    runs: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """The conversation of each memory."""
    turns: int = 0
    """Memories that were said in conversations."""


def _steps(rng: random.Random, events: int) -> Iterator[Step]:
    users = [_User(f"user-{n}") for n in range(max(6, min(200, events // 100)))]
    kinds: list[Kind] = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=events)
    for number, kind in enumerate(kinds):
        yield _step(rng, number, kind, rng.choice(users))


def _step(rng: random.Random, number: int, kind: Kind, user: _User) -> Step:
    text = _text(rng, number)
    if kind == "poison":
        return Step(number, kind, topic=rng.choice(POISONED))
    if kind == "refused":
        return Step(number, kind, user.name, f"r{number}", text=f"{text} {REFUSED_MARK}")
    if kind == "keyed":
        user.keyed.append(f"k{number}")
        run_id = _conversation(rng, user)
        return Step(number, kind, user.name, key=f"k{number}", text=text, run_id=run_id)
    chosen = _target(rng, kind, user)
    if chosen is None:
        kind = "captured"
    if chosen is None or kind in ("captured", "raw", "strange"):
        new = Step(number, kind, user.name, f"m{number}", text=text)
        return _new(replace(new, run_id=_conversation(rng, user)), user)
    return _about(chosen, Step(number, kind, user.name, text=text), user)


def _conversation(rng: random.Random, user: _User) -> str | None:
    """Where something new is said."""
    if rng.random() >= _IN_CONVERSATION:
        return None
    user.turns += 1
    return f"{user.name}-talk-{user.turns // _TURNS}"


def _new(step: Step, user: _User) -> Step:
    user.alive.append(step.memory_id)
    user.runs[step.memory_id] = step.run_id
    user.recent = [*user.recent, step.memory_id][-_RECENT:]
    if step.kind != "captured":
        user.raw.append(step)
    return step


def _about(chosen: str | Step, step: Step, user: _User) -> Step:
    """A step about something that was published before."""
    if isinstance(chosen, Step):
        return replace(step, memory_id=chosen.memory_id, of=chosen.number, text="")
    match step.kind:
        case "repeated":
            return replace(step, key=chosen)
        case "forgotten":
            user.alive = [one for one in user.alive if one != chosen]
            user.recent = [one for one in user.recent if one != chosen]
            return replace(step, memory_id=chosen, text="")
        case "user forgotten":
            user.alive, user.recent = [], []
            return replace(step, text="")
        case "asked":
            return replace(step, text=step.text.partition(": ")[2])
        case _:
            return replace(step, memory_id=chosen, run_id=user.runs[chosen])


def _target(rng: random.Random, kind: Kind, user: _User) -> str | Step | None:
    """Which memory, key or event the step is about; None where there is none yet."""
    choices: dict[Kind, Sequence[str | Step]] = {
        "overwritten": user.alive,
        "forgotten": user.alive,
        # The client answers for what it published a moment ago.
        "revised": user.recent,
        "repeated": user.keyed,
        "again": user.raw,
        # Whoever has nothing is told of nothing.
        "asked": user.alive,
    }
    if kind not in choices:
        return ""
    return rng.choice(choices[kind]) if choices[kind] else None


def _text(rng: random.Random, number: int) -> str:
    words = (rng.choice(words.split(",")) for words in (_SUBJECTS, _VERBS, _OBJECTS))
    return f"Note {number}: {' '.join(words)}."
