"""The poller's cycles against the stand-in, on a clock of its own, while others write between its requests.

What is kept is checked against what Mem0 really held: which states each memory had, and when it was deleted.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from pipeline.errors import Halted, Unavailable
from pipeline.sources.mem0 import Change, Observed, Page, Rules, fingerprint, observed
from pipeline.sources.mem0_api import EVERYBODY, page_of
from pipeline.sources.mem0_sim.filters import Row, at
from pipeline.sources.mem0_sim.memories import Order, iso
from pipeline.sources.mem0_sim.routes import Answer, Request, answer
from pipeline.sources.mem0_sim.server import Mem0Sim, stand_in
from pipeline.sources.mem0_watching import Watching
from schemas.events import MemoryForgotten
from schemas.mem0 import Mem0CycleEnded, Mem0Seen

PROJECT = "project-stand-in"
GONE = "gone"
AUTH = {"authorization": "Token key"}


class Crash(Exception):
    """The process ended here."""


@dataclass
class Log:
    """Kafka: what was published, and the checkpoint that went with it."""

    seen: dict[str, Mem0Seen] = field(default_factory=dict[str, Mem0Seen])
    last: Mem0CycleEnded | None = None
    states: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By memory: the fingerprint of each state that was published, or GONE."""
    versions: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    event_ids: list[str] = field(default_factory=list[str])
    forgotten_while_there: list[str] = field(default_factory=list[str])


class LogBook:
    """A poller's view of the log: what it has kept in its own life, and may lose with it."""

    def __init__(self, log: Log, world: "World") -> None:
        self.seen, self.last = dict(log.seen), log.last
        self._log, self._world = log, world

    async def keep(self, changes: Sequence[Change], ended: Mem0CycleEnded | None = None) -> None:
        crash = self._world.draw_crash()
        if crash == "before":
            raise Crash
        for change in changes:
            self._publish(change)
        self._log.last = self.last = ended or self._log.last
        if crash == "after":
            raise Crash

    def _publish(self, change: Change) -> None:
        self._log.seen[change.seen.memory_id] = change.seen
        for event in change.events:
            gone = isinstance(event, MemoryForgotten)
            if change.kind == "deleted" and self._world.never_left(event.memory_id):
                self._log.forgotten_while_there.append(event.memory_id)
            state = GONE if gone else change.seen.fingerprint
            self._log.states.setdefault(event.memory_id, []).append(state)
            self._log.versions.setdefault(event.memory_id, []).append(event.version)
            self._log.event_ids.append(str(event.event_id))

    async def drop(self, memory_ids: Sequence[str]) -> None:
        for memory_id in memory_ids:
            del self._log.seen[memory_id], self.seen[memory_id]


@dataclass
class World:
    """Mem0, whoever writes to it, and the network in between."""

    seed: int
    order: Order = "created_desc"
    lag_s: float = 60.0
    writes: float = 0.5
    """How many there are between two requests, about."""
    crashes: float = 0.0
    faults: float = 0.0
    restless: bool = False
    """Whether memories change hands, and come back from a backup as they were."""
    turns_back: bool = False
    """Whether Mem0's clock jumps back now and then, between two states of a memory that are far apart."""
    behind_s: float = 0.0
    """How far Mem0's clock is behind the poller's."""
    now: float = 1_750_000_000.0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.sim: Mem0Sim = stand_in(
            seed=self.seed, replica_lag_s=self.lag_s, oddities=0.1, clock=lambda: self.now
        )
        self.sim.memories.order = self.order
        self.truth: dict[str, list[str]] = {}
        self.quiet = False
        self._noted = 0
        self._deleted: dict[str, Row] = {}
        self._came_back: set[str] = set()

    @property
    def rows(self) -> Mapping[str, Row]:
        return self.sim.memories.rows

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.now + self.behind_s, UTC)

    def never_left(self, memory_id: str) -> bool:
        """Whether a memory is there, and has been since it was added."""
        return memory_id in self.rows and memory_id not in self._came_back

    def draw_crash(self) -> str | None:
        if self.quiet or self.chance.random() >= self.crashes:
            return None
        return self.chance.choice(("before", "after"))

    def passes(self, seconds: float) -> None:
        """Time goes by, and others write."""
        self.now += seconds
        self.sim.memories.catch_up()
        if not self.quiet:
            while self.chance.random() < self.writes / (1 + self.writes):
                self.write()
        self.note()

    def write(self) -> None:
        memories, ids = self.sim.memories, list(self.rows)
        kinds = ("add", "update", "touch", "delete", "move", "put_back", "turn_back")
        moves = (4, 2) if self.restless else (0, 0)
        kind = self.chance.choices(kinds, (5, 4, 1, 3, *moves, 6 * self.turns_back))[0]
        if kind == "add" or not ids:
            user = self.chance.choice(("alice", "bob", None))
            scope = {"user_id": user, "agent_id": "bot", "app_id": None, "run_id": None}
            memories.add([f"fact {self.chance.getrandbits(40)}"], scope, {})
        elif kind == "delete":
            some = self.chance.choice(ids)
            self._deleted[some] = self.rows[some]
            memories.delete(some)
        elif kind == "move":
            self._move(self.rows[self.chance.choice(ids)])
        elif kind == "put_back":
            self._put_back()
        elif kind == "turn_back":
            self._turn_back(self.rows[self.chance.choice(ids)])
        else:
            some = self.chance.choice(ids)
            text = {"text": f"fact {self.chance.getrandbits(40)}"} if kind == "update" else {}
            memories.update(some, text)
        self.now += 0.001
        self.note()

    def _move(self, row: Row) -> None:
        user = self.chance.choice(("alice", "bob", None))
        updated_at = self.chance.choice((None, row["updated_at"], iso(self.now)))
        self.sim.memories.put({**row, "user_id": user, "updated_at": updated_at})

    def _turn_back(self, row: Row) -> None:
        """A new state that says it is older than the one before, which the poller knows by now."""
        memories = self.sim.memories
        changed_at = max(c.at for c in memories.log if c.memory_id == row["id"])
        said = at(row["updated_at"])
        if said is not None and self.now - changed_at > 20 * self.lag_s:
            back = said - timedelta(seconds=self.chance.choice((0.5, 3, 86_400)))
            text = f"fact {self.chance.getrandbits(40)}"
            memories.put({**row, "memory": text, "updated_at": iso(back)})

    def _put_back(self) -> None:
        if self._deleted:
            row = self._deleted.pop(self.chance.choice([*self._deleted]))
            # Its history was in the backup, too, and ends before the deletion.
            self.sim.memories.history[row["id"]].pop()
            self._came_back.add(row["id"])
            self.sim.memories.put(row)

    def note(self) -> None:
        """Keeps the states that each memory has had; who had it before it changed hands has it no more."""
        for change in self.sim.memories.log[self._noted :]:
            row = self.rows.get(change.memory_id)
            states = self.truth.setdefault(change.memory_id, [])
            state = GONE if row is None else fingerprint(row)
            if row and change.before and row["user_id"] != change.before["user_id"]:
                states.append(GONE)
            if not states or states[-1] != state:
                states.append(state)
        self._noted = len(self.sim.memories.log)


class Reads:
    """What the poller asks, answered by a replica drawn anew each time, while others write."""

    def __init__(self, world: World) -> None:
        self.requests = 0
        self._world = world

    def _ask(self, method: str, path: str, body: Row | None = None, query: str = "") -> Answer:
        world = self._world
        world.passes(world.chance.uniform(0.05, 2.0))
        self.requests += 1
        if not world.quiet and world.chance.random() < world.faults:
            raise Unavailable("drawn")
        lag_s = world.chance.choice(world.sim.replica_lags_s)
        told = json.dumps(body or {}).encode()
        return answer(world.sim.project, Request(method, path, query, AUTH, told, lag_s))

    async def project(self) -> str:
        return PROJECT

    async def page(self, number: int, *, size: int, since: datetime | None) -> Page | None:
        filters: Row = {"OR": EVERYBODY}
        if since:
            filters = {"AND": [filters, {"updated_at": {"gte": since.isoformat()}}]}
        query = urlencode({"page": number, "page_size": size})
        body = {"filters": filters, "show_expired": True}
        answered = self._ask("POST", "/v3/memories/", body, query)
        return None if answered.status == 404 else page_of(answered.body)

    async def count(self) -> int:
        page = await self.page(1, size=1, since=None)
        return page.count if page else 0

    async def find(self, memory_id: str) -> Observed | None:
        answered = self._ask("GET", f"/v1/memories/{memory_id}/")
        return None if answered.status == 404 else observed(answered.body)

    async def tells_deletion(self, memory_id: str) -> bool:
        answered = self._ask("GET", f"/v1/memories/{memory_id}/history/")
        return answered.status == 200 and answered.body[-1]["event"] == "DELETE"


async def simulated(
    world: World, *, ticks: int = 60, quiet: int = 16, rules: Rules | None = None
) -> Log:
    """The log after so many cycles while others write, and some more when they have stopped."""
    rules = rules or Rules(lag_s=60, sweep_interval_s=600, page_size=7, batch=5, at_once=1)
    for _ in range(60):
        world.write()
    log = Log()
    watching: Watching | None = None
    for tick in range(ticks + quiet):
        world.quiet = tick >= ticks
        world.passes(world.chance.uniform(5, 90))
        watching = watching or Watching(Reads(world), LogBook(log, world), rules, clock=world.clock)
        try:
            await watching.cycle(PROJECT)
        except Halted as asked:
            # A person says that it was meant, this once.
            (said,) = re.findall(r"MEM0_ALLOW_DELETES=(\S+),", str(asked))
            rules, watching = replace(rules, permission=said), None
        except (Crash, Unavailable):
            # The process, or its session, begins anew from what was kept.
            watching = None
    return log
