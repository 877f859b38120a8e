"""What the poller tells people: of a cycle in its log, and of a Mem0 that is another one than before."""

import logging
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from pipeline.errors import Refused
from pipeline.sources.mem0_watching import Tally
from producers import mem0_poller
from producers.mem0_poller import check_project
from schemas.mem0 import Mem0CycleEnded

FEW = Counter(alice=10, bob=2)
MANY = Counter({f"user {n}": 1 for n in range(20)})


@pytest.mark.parametrize(
    ("users", "beside"), [(FEW, ["bob: 0 added, 0 updated, 0 deleted, 0 errors"]), (MANY, [])]
)
def test_users_of_whom_something_has_changed_have_a_line_or_all_of_few_and_all_together_one(
    monkeypatch: pytest.MonkeyPatch, users: Counter[str], beside: list[str]
):
    logged = structlog.testing.LogCapture()
    # Of its own: whoever ran before in this process may have made all others quieter.
    info = structlog.make_filtering_bound_logger(logging.INFO)
    monkeypatch.setattr(mem0_poller, "log", structlog.wrap_logger(None, [logged], info))
    ended = Mem0CycleEnded(
        project_id="p",
        cycle=3,
        started_at=datetime(2026, 1, 31, tzinfo=UTC),
        took_s=0.1,
        requests=1,
        users=3,
        memories=12,
    )
    tally = Tally()
    tally.by_user["alice"] = Counter(added=9, updated=1)
    tally.by_user["bob"] = Counter(touched=2)
    mem0_poller.tell(ended, tally, users)
    assert logged.entries[0]["beside"]["added"] == 9
    assert [line["event"] for line in logged.entries] == [
        "alice: 9 added, 1 updated, 0 deleted, 0 errors",
        *beside,
        "3 users: 9 added, 1 updated, 0 deleted, 0 errors",
    ]


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("p1", "p2", "MEM0_API_KEY belongs to project p2, but .* project p1.* Use a key of that"),
        ("p1", "local:/m", "MEM0_LOCAL is /m, but .* project p1.* Use a key of that project"),
        ("local:/m", "p2", "MEM0_API_KEY belongs .* the folder /m.* Set MEM0_LOCAL=/m"),
        (
            "local:/m#a",
            "local:/m#mem0",
            "collection mem0, .* of the collection a.* MEM0_LOCAL_COLLECTION=a",
        ),
        ("local:/m#a", "local:/n#a", "MEM0_LOCAL is /n, but .* the folder /m.* Set MEM0_LOCAL=/m,"),
        ("local:/m", "local:/n", "MEM0_LOCAL is /n, but .* the folder /m.* Set MEM0_LOCAL=/m"),
    ],
)
def test_another_mem0_is_named_by_the_setting_that_names_it(before: str, now: str, said: str):
    book: Any = SimpleNamespace(last=SimpleNamespace(project_id=before), seen={})
    with pytest.raises(Refused, match=said):
        check_project(now, book, None)


def test_a_ledger_that_does_not_name_the_collection_is_taken_for_one_of_any_in_its_folder():
    book: Any = SimpleNamespace(last=SimpleNamespace(project_id="local:/m"), seen={})
    check_project("local:/m#mem0", book, None)
    with pytest.raises(Refused, match="MEM0_LOCAL is /n"):
        check_project("local:/n#mem0", book, None)
