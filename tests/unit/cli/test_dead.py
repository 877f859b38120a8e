"""dead list: what a dead letter tells of itself."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord

from pipeline.cli.dead import letter
from pipeline.kafka.dead_letters import dead_headers
from tests.unit.cli.conftest import Command, FakeClient

EVENT_ID = uuid4()
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def record(headers: Any, topic: str = "memory.classified") -> Any:
    return ConsumerRecord(
        topic, 2, 17, 1_769_860_800_000, 0, b"k", b"value", None, 1, 5, tuple(headers)
    )


def dead(headers: Any = ()) -> Any:
    own = dead_headers(record(headers), stage="embedder", reason="no vector", now=AT)
    return record(own, "memory.dead")


def test_it_tells_when_where_and_why():
    told = letter(dead([("event-id", str(EVENT_ID).encode())]))
    assert told == {
        "at": AT.isoformat(),
        "stage": "embedder",
        "topic": "memory.classified",
        "partition": 2,
        "offset": 17,
        "reason": "no vector",
        "event_id": str(EVENT_ID),
        "bytes": 5,
        "dead_partition": 2,
        "dead_offset": 17,
    }


def test_headers_that_are_no_text_break_nothing():
    told = letter(record([("dead-stage", b"\xff"), ("dead-offset", b"x"), ("odd", None)]))
    assert (told["offset"], told["topic"], told["event_id"]) == (None, None, None)
    assert told["at"] == AT.isoformat()


@pytest.fixture
def letters(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    async def latest(*_: object) -> list[Any]:
        return found

    monkeypatch.setattr("pipeline.kafka.latest.latest", latest)
    return found


def test_they_are_listed(command: Command, letters: list[Any]):
    letters.append(dead())
    shown = command("dead", "list").stdout
    for expected in ("embedder", "memory.classified/2/17", "no vector"):
        assert expected in shown


def test_none_is_said(command: Command, letters: list[Any]):
    assert command("dead", "list").stdout.strip() == "No dead letters."
    assert command("dead", "list", "--json").stdout == ""
