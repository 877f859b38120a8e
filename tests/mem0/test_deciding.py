"""What decides, by itself: no server, no clock."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from pipeline.cli.status import Status, picture
from pipeline.sources.mem0 import (
    Change,
    Missing,
    Rules,
    believed_gone,
    changed,
    deleted,
    dropped_until,
    fingerprint,
    floor_after,
    is_mass,
    is_permitted,
    kept_before,
    newest_of,
    observed,
    permission_for,
    retry_after_s,
)
from pipeline.sources.mem0_api import says_gone
from producers.mem0_poller import in_words
from schemas.events import MemoryCaptured, MemoryForgotten, MemoryRevised
from schemas.mem0 import Mem0CycleEnded, Mem0Seen

NOW = datetime(2026, 3, 14, 9, 0, tzinfo=UTC)
RULES = Rules()


def row(**fields: Any) -> dict[str, Any]:
    return {
        "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "memory": "I love Thai food",
        "user_id": "alice",
        "created_at": "2026-03-01T00:00:00-08:00",
        "updated_at": "2026-03-01T00:00:00.004-08:00",
    } | fields


def after(
    seen: Mem0Seen | None, *, later_s: float = 0.0, until: int = 0, **fields: Any
) -> Change | None:
    """What a row tells, so many seconds after NOW."""
    at = NOW + timedelta(seconds=later_s)
    read = observed(row(**fields))
    return changed(
        seen, read, project_id="p", asked_at=at, now=at, rules=RULES, dropped_until=until
    )


def added(**fields: Any) -> Mem0Seen:
    change = after(None, **fields)
    assert change is not None
    return change.seen


def ended(cycle: int, **fields: Any) -> Mem0CycleEnded:
    """A cycle of the project p."""
    numbers = {"took_s": 1, "requests": 3, "users": 1, "memories": 1}
    return Mem0CycleEnded.model_validate(
        {"project_id": "p", "cycle": cycle, "started_at": NOW} | numbers | fields
    )


def test_an_unknown_row_was_added_at_its_own_time():
    change = after(None)
    assert change is not None
    (event,) = change.events
    assert isinstance(event, MemoryCaptured)
    assert event.version == 1_772_352_000_004_000
    assert event.occurred_at == datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_the_same_row_tells_nothing():
    assert after(added()) is None


def test_a_newer_state_is_told_and_an_older_one_is_not():
    newer = after(added(), memory="I ski", updated_at="2026-03-02T00:00:00Z")
    assert newer is not None
    assert isinstance(newer.events[0], MemoryRevised)
    assert after(newer.seen) is None


@pytest.mark.parametrize("back_s", [3, 86_400])
def test_a_state_that_says_it_is_older_is_believed_once_no_replica_can_have_it(back_s: int):
    seen = added()
    assert seen.updated_at is not None
    back = (seen.updated_at - timedelta(seconds=back_s)).isoformat()
    assert after(seen, memory="I ski", updated_at=back, later_s=599) is None
    change = after(seen, memory="I ski", updated_at=back, later_s=600)
    assert change is not None
    (event,) = change.events
    assert isinstance(event, MemoryRevised)
    assert (event.text, event.version) == ("I ski", seen.version + 1)
    # What was before it is no news, where a replica still shows it.
    assert after(change.seen, later_s=601) is None


def test_categories_without_a_time_are_believed_once_no_replica_is_older():
    seen = added()
    assert after(seen, categories=["food"], later_s=30) is None
    change = after(seen, categories=["food"], later_s=61)
    assert change is not None
    (event,) = change.events
    assert isinstance(event, MemoryRevised)
    assert event.metadata == {"categories": ["food"]}
    assert event.version == seen.version + 1


@pytest.mark.parametrize("updated_at", [None, "yesterday", "2999-01-01T00:00:00Z"])
def test_a_time_that_is_none_or_odd_gives_a_version_from_no_future(updated_at: str | None):
    seen = added(updated_at=updated_at)
    assert 0 < seen.version <= NOW.timestamp() * 1_000_000


def test_a_time_from_the_future_does_not_hide_what_comes():
    rows = [observed(row(updated_at=at)) for at in ("2026-03-01T00:00:00Z", "2999-01-01T00:00:00Z")]
    assert newest_of(rows, None, NOW) == datetime(2026, 3, 1, tzinfo=UTC)


def test_a_deletion_is_newer_than_all_before_it():
    change = deleted(added(), NOW)
    (event,) = change.events
    assert isinstance(event, MemoryForgotten)
    assert event.version > added().version


def test_a_deleted_memory_that_a_replica_still_shows_stays_deleted():
    gone = deleted(added(), NOW).seen
    assert after(gone, later_s=120) is None
    back = after(gone, later_s=700)
    assert back is not None
    assert back.events[0].version > gone.version


def test_a_memory_that_changed_hands_is_forgotten_where_it_was():
    change = after(added(), user_id="bob", updated_at="2026-03-02T00:00:00Z")
    assert change is not None
    forgotten, captured = change.events
    assert isinstance(forgotten, MemoryForgotten)
    assert (forgotten.user_id, captured.user_id) == ("alice", "bob")


@pytest.mark.parametrize("between", ["bob", None])
@pytest.mark.parametrize("behind_s", [None, 900])
def test_a_memory_that_comes_back_is_newer_than_its_forgetting(
    between: str | None, behind_s: float | None
):
    seen, told = added(updated_at=None), list[tuple[str, int]]()
    for later_s, user_id in ((700, between), (1_400, "alice")):
        at = NOW + timedelta(seconds=later_s - (behind_s or 0))
        updated_at = at.isoformat() if behind_s else None
        change = after(seen, user_id=user_id, updated_at=updated_at, later_s=later_s)
        assert change is not None
        seen = change.seen
        told += [(event.user_id, event.version) for event in change.events]
    (_, forgotten), *_, (user, back) = told
    assert user == "alice"
    assert back > forgotten
    assert seen.version == back


def test_a_memory_that_is_put_back_is_newer_than_all_that_is_known_no_more():
    gone = deleted(added(), NOW).seen
    last = ended(2, dropped_until=dropped_until(None, [gone]))
    until = dropped_until(ended(3, dropped_until=dropped_until(last)))
    change = after(None, until=until)
    assert change is not None
    assert change.events[0].version == gone.version + 1


def test_what_a_poller_from_before_has_dropped_is_older_than_its_last_cycle():
    assert dropped_until(ended(7)) == NOW.timestamp() * 1_000_000
    assert dropped_until(None) == 0


def test_a_memory_that_is_nobodys_is_published_to_nobody():
    change = after(None, user_id=None)
    assert change is not None
    assert change.events == ()
    assert deleted(change.seen, NOW).events == ()


def test_what_cannot_be_an_event_says_why_and_keeps_what_was_published():
    change = after(added(), memory=" ", updated_at="2026-03-02T00:00:00Z")
    assert change is not None
    assert (change.kind, change.events) == ("error", ())
    assert change.seen.unusable
    assert deleted(change.seen, NOW).kind == "deleted"


NO_ID = ["caf\udce9", "u" * 5_000_000, " ", "a\x00"]


@pytest.mark.parametrize("name", NO_ID, ids=["surrogate", "large", "blank", "nul"])
def test_a_user_that_no_event_can_name_is_told_in_short_and_kept_by_no_name(name: str):
    change = after(added(), user_id=name, updated_at="2026-03-02T00:00:00Z")
    assert change is not None
    assert change.kind == "error"
    assert change.user_id is not None
    assert 0 < len(change.user_id.encode()) < 100
    # Who had it before has it no more.
    assert [(type(event), event.user_id) for event in change.events] == [(MemoryForgotten, "alice")]
    assert change.seen.user_id is None
    assert "user_id" in (change.seen.unusable or "")
    assert len(change.seen.model_dump_json()) < 1_000
    assert after(change.seen, user_id=name, updated_at="2026-03-02T00:00:00Z") is None
    back = after(change.seen, updated_at="2026-03-03T00:00:00Z")
    assert back is not None
    assert [type(event) for event in back.events] == [MemoryCaptured]


@pytest.mark.parametrize("user_id", ["alice", None])
@pytest.mark.parametrize("name", NO_ID, ids=["surrogate", "large", "blank", "nul"])
def test_a_memory_that_no_event_can_name_is_kept_by_a_digest_of_its_name(
    name: str, user_id: str | None
):
    change = after(None, id=name, user_id=user_id)
    assert change is not None
    assert change.events == ()
    assert len(change.seen.model_dump_json()) < 1_000
    assert change.seen.memory_id == observed(row(id=name)).memory_id != added().memory_id
    assert (change.kind == "error") == (user_id is not None)


def test_a_name_that_was_kept_whole_once_is_kept_no_more():
    seen = added(user_id="u" * 5_000)
    before = seen.model_copy(update={"user_id": "u" * 5_000})
    assert kept_before(before) == seen
    assert kept_before(added()) == added()


def test_a_young_memory_is_not_believed_gone():
    assert not believed_gone(added(), NOW + timedelta(seconds=59), RULES)
    assert believed_gone(added(), NOW + timedelta(seconds=60), RULES)


@pytest.mark.parametrize(
    ("missing", "known", "mass"),
    [
        (0, 0, False),
        (1, 1, False),
        (3, 3, True),
        (20, 30, False),
        (21, 200, False),
        (50, 200, True),
    ],
)
def test_a_mass_disappearance(missing: int, known: int, mass: bool):
    assert is_mass(missing, known) is mass


def gone(missing: int, known: int) -> Missing:
    """So many of those that were there when the last cycle ended."""
    return Missing(missing, known, missing, known, asked=True)


def test_a_permission_is_for_one_disappearance():
    last = ended(7)
    said = permission_for("p", last, 30)
    assert is_permitted(said, "p", last, gone(30, 60))
    # Killed in the middle of it, it goes on.
    assert is_permitted(said, "p", last, gone(12, 42))
    assert not is_permitted(said, "p", ended(8), gone(30, 60))
    assert not is_permitted(said, "another", last, gone(30, 60))
    assert not is_permitted(None, "p", last, gone(30, 60))


def test_a_permission_covers_a_few_more_and_not_many():
    said = permission_for("p", None, 30)
    assert is_permitted(said, "p", None, gone(35, 200))
    assert not is_permitted(said, "p", None, gone(200, 200))
    # However many others came meanwhile.
    assert not is_permitted(said, "p", None, Missing(200, 2_000, 200, 200, asked=True))


def test_only_mem0s_own_words_mean_gone():
    assert says_gone({"error": "Memory not found!"})
    assert not says_gone({"detail": "Not found."})
    assert not says_gone("<html>")


@pytest.mark.parametrize(
    ("metadata", "speaker"),
    [
        ({"speaker": "Ana"}, "Ana"),
        ({"actor_id": "bot"}, "bot"),
        ({"speaker": {"name": "Ana"}}, None),
        ({"speaker": ""}, None),
        ({"speaker": "x" * 10_000}, None),
        (None, None),
    ],
)
def test_who_said_it_stands_in_metadata(metadata: Any, speaker: str | None):
    change = after(None, metadata=metadata)
    assert change is not None
    (event,) = change.events
    assert isinstance(event, MemoryCaptured)
    assert event.speaker == speaker


def test_empty_and_missing_are_the_same_content():
    assert fingerprint(row(metadata=None)) == fingerprint(row(metadata={}, categories=[]))
    assert fingerprint(row()) != fingerprint(row(metadata={"a": 1}))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Sat, 14 Mar 2026 09:00:30 GMT", 30.0),
        ("Sat, 14 Mar 2026 08:00:00 GMT", 0.0),
        ("999999", 3_600.0),
        ("soon", None),
        ("nan", None),
        (None, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None):
    assert retry_after_s(header, NOW) == seconds


def test_the_next_cycle_asks_from_before_what_may_have_been_missed():
    newest = NOW - timedelta(seconds=10)

    def floor(last: Mem0CycleEnded | None, *, stable: bool = True) -> datetime | None:
        return floor_after(
            last, newest, walk_began=NOW, walk_took_s=5.0, stable=stable, rules=RULES
        )

    assert floor(None) == newest - timedelta(seconds=65)
    assert floor(None, stable=False) is None
    quiet = ended(1, newest=newest, newest_seen_at=NOW - timedelta(seconds=61))
    assert floor(quiet) == newest


def test_the_operators_words():
    assert in_words(Counter(added=9, updated=1)) == "9 added, 1 updated, 0 deleted, 0 errors"
    assert in_words(Counter(error=1)).endswith("1 error")


def test_status_shows_the_last_cycle():
    last = ended(7, started_at=datetime.now(UTC), users=3, memories=42, added=9)
    seen = Status([], [], 0, 0, 0, mem0=last.model_dump(mode="json"))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(picture(seen))
    assert "Mem0: 42 memories of 3 users" in capture.get()
    assert "9 added, 0 updated, 0 deleted, 0 errors" in capture.get()
