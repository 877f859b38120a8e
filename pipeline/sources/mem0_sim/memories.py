"""The stand-in's state: memories as of any moment of the last while, their history, and what is due later.

A write is visible at once on the primary and later on the replicas, so a read says how far behind its
replica is. What the platform does in the background (inferring, deleting many, naming categories)
happens when the next request finds that its time has come.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal
from uuid import UUID

from pipeline.sources.mem0_sim.filters import ENTITIES, Row, Test, at

Order = Literal["created_desc", "created_asc", "updated_desc", "id"]
_PACIFIC = timezone(timedelta(hours=-8))
_KEPT_QUERIES = 8


@dataclass(frozen=True, slots=True)
class Change:
    """One write: what there was before, and when it came."""

    at: float
    memory_id: str
    before: Row | None


@dataclass
class Memories:
    """All memories of one project. Rows are never changed in place."""

    clock: Callable[[], float]
    chance: random.Random
    order: Order = "created_desc"
    background_s: float = 0.05
    """How long the platform takes for what it does in the background."""
    oddities: float = 0.0
    """The share of new rows with one: no updated_at, a Pacific offset, categories that come later."""
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    history: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    events: list[Row] = field(default_factory=list[Row])
    entities: set[tuple[str | None, str]] = field(default_factory=set[tuple[str | None, str]])
    """Whose memories there are or were: column and name."""
    requests: dict[str, Row] = field(default_factory=dict[str, Row])
    """What add and delete_all promised, by event id."""
    log: list[Change] = field(default_factory=list[Change])
    _due: list[tuple[float, Callable[[], None]]] = field(
        default_factory=list[tuple[float, Callable[[], None]]]
    )
    _queries: OrderedDict[Any, list[Row]] = field(default_factory=OrderedDict[Any, list[Row]])

    # Reading

    def seen(self, lag_s: float = 0.0) -> Mapping[str, Row]:
        """The rows as a replica that is `lag_s` behind has them."""
        until = self.clock() - lag_s
        if not self.log or lag_s <= 0 or self.log[-1].at <= until:
            return self.rows
        then = dict(self.rows)
        for change in reversed(self.log):
            if change.at <= until:
                break
            if change.before is None:
                then.pop(change.memory_id, None)
            else:
                then[change.memory_id] = change.before
        return then

    def found(self, test: Test, name: object, lag_s: float = 0.0) -> list[Row]:
        """The rows that pass, in order. `name` tells tests apart, for those that are asked again."""
        rows = self.seen(lag_s)
        if rows is not self.rows:
            return self._sorted(row for row in rows.values() if test(row))
        key = (len(self.log), self.order, name)
        if key not in self._queries:
            self._queries[key] = self._sorted(row for row in rows.values() if test(row))
            while len(self._queries) > _KEPT_QUERIES:
                self._queries.popitem(last=False)
        return self._queries[key]

    def _sorted(self, rows: Iterable[Row]) -> list[Row]:
        if self.order == "id":
            return sorted(rows, key=lambda row: row["id"])
        name, _, direction = self.order.partition("_")
        last = datetime.min.replace(tzinfo=UTC)
        return sorted(
            rows, key=lambda row: at(row[f"{name}_at"]) or last, reverse=direction == "desc"
        )

    # Writing

    def add(self, texts: Sequence[str], scope: Row, given: Row) -> list[Row]:
        """Keeps what is not there yet, word for word, in the same scope; returns the new rows."""
        return [
            self._new(text, scope, given)
            for text in texts
            if not any(self._same(row, text, scope) for row in self.rows.values())
        ]

    def hold(self, text: str, scope: Row, given: Row | None = None) -> Row:
        """Keeps a text whether or not it is there already: quick, for very many."""
        return self._new(text, dict.fromkeys(ENTITIES) | scope, given or {})

    @staticmethod
    def _same(row: Row, text: str, scope: Row) -> bool:
        return row["memory"] == text and all(row[name] == scope[name] for name in ENTITIES)

    def _new(self, text: str, scope: Row, given: Row) -> Row:
        now = self.clock()
        said = at(given.get("timestamp"))
        created = said.timestamp() if said else now
        odd = self.chance.random() < self.oddities
        row: Row = {
            "id": str(self.new_id()),
            "memory": text,
            **scope,
            "session_id": scope["run_id"],
            "metadata": given.get("metadata"),
            "categories": None,
            "structured_attributes": _attributes(created),
            "replaced_by": None,
            "synthesized": False,
            "expiration_date": given.get("expiration_date"),
            "created_at": iso(created),
            # A fresh row was updated a moment after it was created, whenever it says that was.
            "updated_at": iso(now + 0.004),
        }
        if odd:
            kind = self.chance.choice(("none", "pacific", "later"))
            if kind == "none":
                row["updated_at"] = None
            elif kind == "pacific":
                row["updated_at"] = iso(created, _PACIFIC)
            else:
                self.later(lambda: self.categorise(row["id"], ["misc"]))
        self.entities |= {(column, scope[column]) for column in ENTITIES if scope[column]}
        self.put(row)
        self._tell("ADD", None, row, now)
        return row

    def update(self, memory_id: str, given: Row) -> Row | None:
        """The row as it is now; None where there is none."""
        row = self.rows.get(memory_id)
        if row is None:
            return None
        now = self.clock()
        new = {**row, "updated_at": iso(now)}
        if "text" in given:
            new["memory"] = given["text"]
        new |= {k: given[k] for k in ("metadata", "expiration_date") if k in given}
        if given.get("timestamp") is not None:
            new["created_at"] = iso(at(given["timestamp"]) or now)
        self.put(new)
        self._tell("UPDATE", row, new, now)
        return new

    def categorise(self, memory_id: str, categories: Sequence[str]) -> None:
        """Names what a memory is about: later than it came, and without touching its updated_at."""
        row = self.rows.get(memory_id)
        if row is not None:
            self.put({**row, "categories": list(categories)})

    def delete(self, memory_id: str) -> bool:
        """Whether there was one."""
        row = self.rows.pop(memory_id, None)
        if row is None:
            return False
        now = self.clock()
        self.log.append(Change(now, memory_id, row))
        self._tell("DELETE", row, None, now)
        return True

    def put(self, row: Row) -> None:
        """Keeps a row as it is."""
        self.log.append(Change(self.clock(), row["id"], self.rows.get(row["id"])))
        self.rows[row["id"]] = row

    def later(self, what: Callable[[], None]) -> None:
        """Does it when its time has come and somebody asks."""
        self._due.append((self.clock() + self.background_s, what))

    def catch_up(self) -> None:
        """Does what is due."""
        now = self.clock()
        due = [what for when, what in self._due if when <= now]
        self._due = [(when, what) for when, what in self._due if when > now]
        for what in due:
            what()

    def new_id(self) -> UUID:
        """The same ids for the same seed."""
        return UUID(int=self.chance.getrandbits(128), version=4)

    def _tell(self, event: str, before: Row | None, after: Row | None, now: float) -> None:
        row = after or before or {}
        entry: Row = {
            "id": str(self.new_id()),
            "memory_id": row["id"],
            "input": [{"role": "user", "content": row["memory"]}],
            "old_memory": before["memory"] if before else None,
            "new_memory": after["memory"] if after else None,
            "user_id": row["user_id"],
            "event": event,
            "metadata": row["metadata"],
            "created_at": iso(now),
            "updated_at": iso(now),
        }
        self.history.setdefault(row["id"], []).append(entry)
        self.events.append(entry)


def iso(moment: float | datetime, zone: timezone = UTC) -> str:
    """As the platform writes a time."""
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(zone).isoformat()


def _attributes(created: float) -> Row:
    day = datetime.fromtimestamp(created, UTC)
    return {"year": day.year, "month": day.month, "day": day.day, "hour": day.hour}
