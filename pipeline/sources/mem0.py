"""Rows of Mem0 and what was seen before -> what changed, and the events that tell it. Pure.

Mem0 lists neither deletions nor versions, and its replicas lag. What decides:

- a row that is not known was added; one whose fingerprint differs was updated, unless it may be an older
  state that a replica still shows;
- a row that is not listed is a candidate only: it was deleted when Mem0 says so of its id, and when it has
  been known for longer than a replica can lag, or its history tells the deletion;
- where too much disappears at once, a person is asked.

`updated_at` is Mem0's clock and orders the states of one memory; our own clock only measures how long ago
something was seen.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID, uuid5

from pydantic import TypeAdapter, ValidationError

from pipeline.domain.clock import moment_of
from pipeline.domain.telling import told
from schemas.events import MemoryCaptured, MemoryForgotten, MemoryRevised
from schemas.mem0 import Mem0CycleEnded, Mem0Seen
from schemas.text import Id

Row = Mapping[str, Any]
Kind = Literal["added", "updated", "deleted", "error", "touched"]
Event = MemoryCaptured | MemoryRevised | MemoryForgotten

_EVENTS = UUID("6a1f6f0e-3f0b-5a4e-9a57-0f6f0f4e2b11")
_IDS = UUID("0d6a52b4-4b3c-5a57-9d0e-6a0d6b1f7c55")
_ID: TypeAdapter[str] = TypeAdapter(Id)
_TOLD_CHARS = 64
_AHEAD = timedelta(hours=1)
"""How far beyond our clock an `updated_at` may lie and still move the place to go on from."""
RETURN_LAGS = 10
"""After so many lags a deleted memory that is listed again is believed, and a state that says it is older."""
FEW_MISSING = 20
MANY_MISSING = 0.2
LONGEST_RETRY_AFTER_S = 3_600.0
LOCAL = "local:"
"""How the project of a Mem0 without the cloud begins; its folder and its collection follow."""


class Mem0Reads(Protocol):
    """What is asked of Mem0. Each may raise Unavailable, and Refused where the key is not accepted."""

    requests: int
    """How many were sent."""

    async def project(self) -> str:
        """The id of the project that the key belongs to."""
        ...

    async def page(self, number: int, *, size: int, since: datetime | None) -> "Page | None":
        """The page `number`, from 1, of all rows with `updated_at` >= `since`; None: there is none."""
        ...

    async def count(self) -> int:
        """How many memories there are."""
        ...

    async def find(self, memory_id: str) -> "Observed | None":
        """One memory; None only where Mem0 says that there is none."""
        ...

    async def tells_deletion(self, memory_id: str) -> bool:
        """Whether the memory's history ends with its deletion."""
        ...


@dataclass(frozen=True, slots=True)
class Observed:
    """One row, as it was listed."""

    memory_id: str
    """What it is kept by: its id, wherever that can be one."""
    user_id: str | None
    """As it was listed, which may be no id."""
    fingerprint: str
    created_at: datetime | None
    updated_at: datetime | None
    said: Row
    """The fields of the event, not yet checked."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, how many there are in all, and whether another page follows."""

    rows: Sequence[Observed]
    count: int
    more: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one memory: the events that tell it, and what is now known."""

    kind: Kind
    user_id: str | None
    events: tuple[Event, ...]
    seen: Mem0Seen


@dataclass(frozen=True)
class Rules:
    """How the poller goes about it."""

    lag_s: float = 60.0
    """How far behind a replica may be."""
    sweep_interval_s: float = 3_600.0
    page_size: int = 200
    batch: int = 500
    """Changes published at a time."""
    at_once: int = 4
    """Requests under way."""
    permission: str | None = None
    """What a person was told to say where one mass disappearance was meant; see `permission_for`."""

    @property
    def lag(self) -> timedelta:
        return timedelta(seconds=self.lag_s)


# Reading rows


def observed(row: Row) -> Observed:
    """A row of Mem0. Raises ValueError where it is none."""
    memory_id = row.get("id")
    if not isinstance(memory_id, str) or not memory_id or "memory" not in row:
        raise ValueError("is no memory: it has no id or no text")
    user_id = row.get("user_id")
    created_at = moment(row.get("created_at"))
    return Observed(
        memory_id=_key(memory_id),
        user_id=None if user_id is None else str(user_id),
        fingerprint=fingerprint(row),
        created_at=created_at,
        updated_at=moment(row.get("updated_at")),
        said={
            "memory_id": memory_id,
            "text": row["memory"],
            "agent_id": row.get("agent_id"),
            "app_id": row.get("app_id"),
            "run_id": row.get("run_id") or row.get("session_id"),
            "speaker": _speaker(row),
            "metadata": _metadata(row),
        },
    )


def fingerprint(row: Row) -> str:
    """32 hexadecimal digits over what a row says: all but its times and what Mem0 derives."""
    names = ("memory", "metadata", "categories", "expiration_date")
    ids = ("user_id", "agent_id", "app_id", "run_id", "session_id")
    said = {name: row.get(name) or None for name in (*names, *ids)}
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), default=str)
    return sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _speaker(row: Row) -> str | None:
    """Who said it, where metadata tell: Mem0 has no field for it."""
    own = row.get("metadata")
    told = [own.get(name) for name in ("speaker", "actor_id")] if isinstance(own, dict) else []
    return next((name for name in told if _is_id(name)), None)


def _is_id(name: Any) -> bool:
    try:
        _ID.validate_python(name)
    except ValidationError:
        return False
    return True


def _key(memory_id: str) -> str:
    """What a memory is kept by: its id, or a digest of it that looks like one of Mem0's own."""
    if _is_id(memory_id):
        return memory_id
    digest = sha256(memory_id.encode("utf-8", "surrogatepass")).hexdigest()
    return str(uuid5(_IDS, digest))


def _in_short(user_id: str | None) -> str | None:
    """A user's name to tell, whatever it is: it may be no text, and megabytes long."""
    if user_id is None or _is_id(user_id):
        return user_id
    start = user_id[:_TOLD_CHARS].encode("utf-8", "backslashreplace").decode()
    return start if len(user_id) <= _TOLD_CHARS else f"{start}…"


def kept_before(seen: Mem0Seen) -> Mem0Seen:
    """As it is kept now: a name that no event can have was kept whole once, and told in each cycle."""
    if seen.unusable is None or _is_id(seen.user_id):
        return seen
    return seen.model_copy(update={"user_id": None})


def _metadata(row: Row) -> Any:
    """Mem0's metadata, and beside it what else one may want to find the memory by."""
    own = row.get("metadata") or {}
    if not isinstance(own, dict):
        return own
    beside = {name: row.get(name) for name in ("categories", "expiration_date")}
    return {name: value for name, value in beside.items() if value} | own


def moment(value: Any) -> datetime | None:
    """A time as Mem0 writes it, in any offset; None where there is none, or it cannot be read."""
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(value)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# What changed


def changed(
    seen: Mem0Seen | None,
    row: Observed,
    *,
    project_id: str,
    asked_at: datetime,
    now: datetime,
    rules: Rules,
    dropped_until: int = 0,
) -> Change | None:
    """What a listed row tells beyond what is known; None: nothing, or only what was.

    `asked_at` is before the row was asked for, `now` after it came: in between is when it was so. What is not
    known may have been: `dropped_until` is the greatest version of what is known no more.
    """
    if seen is None:
        return _told("added", None, row, project_id, now, after=dropped_until)
    if seen.forgotten:
        if asked_at - seen.changed_at < rules.lag * RETURN_LAGS:
            return None
        return _told("added", seen, row, project_id, now)
    if row.fingerprint == seen.fingerprint:
        return _touched(seen, row, now)
    if is_unsettled(seen, row, asked_at, rules):
        return None
    return _told("updated", seen, row, project_id, now)


def is_unsettled(seen: Mem0Seen, row: Observed, asked_at: datetime, rules: Rules) -> bool:
    """Whether nobody knows yet which of two states is the newer one.

    Mem0 names categories later and does not touch `updated_at`, and some rows have none. Once the known
    state is older than a replica can lag, all of them have it, and what differs came after it: also what
    says that it is older, as when Mem0's clock went back, or a backup was put back over it.
    """
    if row.fingerprint == seen.fingerprint or seen.forgotten or _is_newer(row, seen):
        return False
    # What says that it is older likely is: a replica that lags more than it should is given time.
    lags = RETURN_LAGS if _is_older(row, seen) else 1
    return asked_at - seen.changed_at < rules.lag * lags


def _is_newer(row: Observed, seen: Mem0Seen) -> bool:
    return bool(row.updated_at and seen.updated_at and row.updated_at > seen.updated_at)


def _is_older(row: Observed, seen: Mem0Seen) -> bool:
    return bool(row.updated_at and seen.updated_at and row.updated_at < seen.updated_at)


def _touched(seen: Mem0Seen, row: Observed, now: datetime) -> Change | None:
    """The same content, written again: what is older than this is stale from now on."""
    if row.updated_at is None or (seen.updated_at and row.updated_at <= seen.updated_at):
        return None
    now_seen = seen.model_copy(update={"updated_at": row.updated_at, "changed_at": now})
    return Change("touched", seen.user_id, (), now_seen)


def _told(
    kind: Literal["added", "updated"],
    seen: Mem0Seen | None,
    row: Observed,
    project_id: str,
    now: datetime,
    *,
    after: int = 0,
) -> Change:
    left = _left_behind(seen, row, now) if seen and seen.published and not seen.forgotten else ()
    # Newer than the forgetting, too: the memory may go back to where it is left behind now.
    versions = [after, *([seen.version] if seen else []), *(event.version for event in left)]
    version = version_of(row, max(versions), now)
    known = bool(seen and seen.published and not seen.forgotten and not left)
    goes_back = seen is not None and not seen.forgotten and _is_older(row, seen)
    event, why = _event(row, version, known=known, project_id=project_id, now=now)
    now_seen = Mem0Seen(
        project_id=project_id,
        memory_id=row.memory_id,
        # What no event could name, no record could hold.
        user_id=row.user_id if _is_id(row.user_id) else None,
        fingerprint=row.fingerprint,
        # Where it went back, a replica that still shows the state before is not newer.
        updated_at=seen.updated_at if seen and goes_back else row.updated_at,
        version=version,
        # One that came back is as new to the replicas as one that was never there.
        first_seen_at=seen.first_seen_at if seen and not seen.forgotten else now,
        changed_at=now,
        published=event is not None or known,
        unusable=why,
    )
    if why:
        return Change("error", _in_short(row.user_id), left, now_seen)
    if event is None and not left:
        return Change("touched", None, (), now_seen)
    return Change(kind, row.user_id, (*left, event) if event else left, now_seen)


def _left_behind(seen: Mem0Seen, row: Observed, now: datetime) -> tuple[Event, ...]:
    """A memory that changed hands is forgotten where it was."""
    if seen.user_id == row.user_id:
        return ()
    return (forgetting(seen, now),)


def version_of(row: Observed, previous: int, now: datetime) -> int:
    """Microseconds of `updated_at`, and in any case after `previous`; none from the future."""
    told_at = row.updated_at or row.created_at or now
    return max(_microseconds(min(told_at, now)), previous + 1, 1)


def _event(
    row: Observed, version: int, *, known: bool, project_id: str, now: datetime
) -> tuple[MemoryCaptured | MemoryRevised | None, str | None]:
    """The event, or why there is none. A memory that is no user's is published to nobody."""
    if row.user_id is None:
        return None, None
    kind = MemoryRevised if known else MemoryCaptured
    event_id = event_id_of(project_id, row.memory_id, kind.__name__, version, row.fingerprint)
    fields = {
        **row.said,
        "event_id": event_id,
        "user_id": row.user_id,
        "version": version,
        "published_at": now,
        "occurred_at": row.created_at or moment_of(version),
    }
    try:
        return kind.model_validate(fields), None
    except ValidationError as error:
        return None, told(error)


def deleted(seen: Mem0Seen, now: datetime) -> Change:
    """The memory is gone from Mem0."""
    version = _forgetting_version(seen, now)
    now_seen = seen.model_copy(
        update={
            "version": version,
            "changed_at": now,
            "published": False,
            "forgotten": True,
            "unusable": None,
        }
    )
    if not seen.published:
        return Change("touched", seen.user_id, (), now_seen)
    return Change("deleted", seen.user_id, (forgetting(seen, now),), now_seen)


def forgetting(seen: Mem0Seen, now: datetime) -> MemoryForgotten:
    """The event that ends what was published of a memory."""
    assert seen.user_id is not None
    version = _forgetting_version(seen, now)
    return MemoryForgotten(
        event_id=event_id_of(
            seen.project_id, seen.memory_id, "MemoryForgotten", version, seen.fingerprint
        ),
        user_id=seen.user_id,
        memory_id=seen.memory_id,
        version=version,
        published_at=now,
    )


def _forgetting_version(seen: Mem0Seen, now: datetime) -> int:
    return max(seen.version + 1, _microseconds(now))


def event_id_of(
    project_id: str, memory_id: str, kind: str, version: int, fingerprint_: str
) -> UUID:
    """The same for the same change, whoever tells it and how often."""
    return uuid5(_EVENTS, json.dumps([project_id, memory_id, kind, version, fingerprint_]))


def _microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def is_expendable(seen: Mem0Seen, now: datetime, rules: Rules) -> bool:
    """Whether a memory was deleted so long ago that no replica shows it any more."""
    return seen.forgotten and now - seen.changed_at > rules.lag * RETURN_LAGS * 6


def dropped_until(last: Mem0CycleEnded | None, dropped: Iterable[Mem0Seen] = ()) -> int:
    """The greatest version of all that is known no more, `dropped` among it.

    What is put back, an hour later or a year, with the time it had, must be newer than its forgetting. One number
    for all of them: what is kept of each would be kept for good.
    """
    before = last.dropped_until if last else 0
    if last and before is None:
        # A cycle from before this was kept.
        before = _microseconds(last.started_at)
    return max([before or 0, *(seen.version for seen in dropped)])


# What is missing


def believed_gone(seen: Mem0Seen, asked_at: datetime, rules: Rules) -> bool:
    """Whether Mem0's word that there is no such memory is enough: each replica has heard of it by now."""
    return asked_at - seen.first_seen_at >= rules.lag


def is_mass(missing: int, known: int) -> bool:
    """Whether so many are missing that a broken listing or a wrong project is likelier than deletions."""
    if missing == known:
        return missing > 2
    return missing > FEW_MISSING and missing > known * MANY_MISSING


@dataclass(frozen=True, slots=True)
class Missing:
    """How much is not listed: of all that is known, and of what was known when all was there."""

    missing: int
    known: int
    old_missing: int
    old_known: int
    asked: bool
    """Whether a person was asked already."""

    @property
    def is_mass(self) -> bool:
        """Whether a person has to say that it was meant: once asked, about any of what was there."""
        some_left = self.asked and self.old_missing > 0
        return some_left or any(is_mass(*of) for of in self.measures)

    @property
    def measures(self) -> Sequence[tuple[int, int]]:
        """How many of how many. What was added while a person is asked must not outweigh what is missing."""
        return (self.missing, self.known), (self.old_missing, self.old_known)

    @property
    def told_of(self) -> int:
        """Of how many the missing ones are too many."""
        if is_mass(self.missing, self.known):
            return self.known
        return self.old_known + self.missing - self.old_missing


def missing_of(
    missing: Iterable[str], known: Mapping[str, Mem0Seen], last: Mem0CycleEnded | None
) -> Missing:
    """How much of what is known is missing."""
    missing = set(missing)
    until = known_until(last)
    old = {i for i, s in known.items() if until is not None and s.first_seen_at <= until}
    asked = last is not None and last.asked
    return Missing(len(missing), len(known), len(missing & old), len(old), asked)


def known_until(last: Mem0CycleEnded | None) -> datetime | None:
    """Until when nothing was missing that is missing now; None: no cycle has ended."""
    if last is None:
        return None
    return last.known_until or last.started_at + timedelta(seconds=last.took_s)


def permission_for(project_id: str, last: Mem0CycleEnded | None, missing: int) -> str:
    """What to say to have so many deleted that have disappeared since the last cycle: `30@7f3a9c1e`.

    None ends while a person is asked, and the one that deletes them has another name: what was said is
    void from then on.
    """
    since = [project_id, last.cycle, last.started_at.isoformat()] if last else [project_id]
    return f"{missing}@{sha256(json.dumps(since).encode()).hexdigest()[:8]}"


def is_permitted(
    permission: str | None, project_id: str, last: Mem0CycleEnded | None, gone: Missing
) -> bool:
    """Whether a person has said yes to this disappearance, and to about so many."""
    number = (permission or "").partition("@")[0]
    if not number.isdecimal() or permission != permission_for(project_id, last, int(number)):
        return False
    # A few more may go while a person thinks about it.
    more = [(missing - int(number), known - int(number)) for missing, known in gone.measures]
    return not any(is_mass(*of) for of in more)


# Where to go on


def newest_of(rows: Sequence[Observed], newest: datetime | None, now: datetime) -> datetime | None:
    """The greatest `updated_at`; one from the future would hide all that comes until then."""
    times = [row.updated_at for row in rows if row.updated_at and row.updated_at <= now + _AHEAD]
    return max([*times, *([newest] if newest else [])], default=None)


def floor_after(
    last: Mem0CycleEnded | None,
    newest: datetime | None,
    *,
    walk_began: datetime,
    walk_took_s: float,
    stable: bool,
    rules: Rules,
) -> datetime | None:
    """From which `updated_at` on the next cycle must ask to miss nothing.

    What was written while the pages were read, or has not reached the replica yet, is not older than the
    newest row, less the time that both took. Where nothing newer came for longer than a replica
    lags, nothing older can come.
    """
    floor = last.floor if last else None
    if newest is None or not stable:
        return floor
    quiet = (
        last is not None
        and last.newest == newest
        and last.newest_seen_at is not None
        and walk_began - last.newest_seen_at >= rules.lag
    )
    reached = newest if quiet else newest - rules.lag - timedelta(seconds=walk_took_s)
    return max(floor, reached) if floor else reached


def sweep_is_due(last: Mem0CycleEnded | None, now: datetime, rules: Rules) -> bool:
    """Whether everything has to be listed again."""
    if last is None or last.floor is None or last.swept_at is None:
        return True
    return now - last.swept_at >= timedelta(seconds=rules.sweep_interval_s)


# Mem0 without the cloud


def local_project(folder: Path, collection: str) -> str:
    """The name of a Mem0 without the cloud."""
    return f"{LOCAL}{folder}#{collection}"


def is_same_project(before: str, bound: str) -> bool:
    """Whether what was seen before is of this project. A folder had no collection in its name once."""
    return before == bound or (bound.startswith(LOCAL) and before == bound.rpartition("#")[0])


def folder_of(project_id: str) -> str | None:
    """The folder of a Mem0 without the cloud; None where it is a project of the platform."""
    if not project_id.startswith(LOCAL):
        return None
    folder, named, _ = project_id.removeprefix(LOCAL).rpartition("#")
    return folder if named else project_id.removeprefix(LOCAL)


def collection_of(project_id: str) -> str | None:
    """Where the memories are in that folder; None where its name does not say."""
    _, named, collection = project_id.rpartition("#")
    return collection if named and project_id.startswith(LOCAL) else None


# When to ask again


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """What `Retry-After` says, as seconds or as a date; None where it says nothing."""
    if header is None:
        return None
    try:
        wanted = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except (ValueError, TypeError):
            return None
        wanted = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    if math.isnan(wanted):
        return None
    return min(max(wanted, 0.0), LONGEST_RETRY_AFTER_S)
