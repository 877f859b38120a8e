"""dead ...: what a dead letter tells of itself, and which ones are meant."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord
from rich.console import Console

from pipeline.cli.dead import content, described, told, why_left
from pipeline.kafka.dead_letters import (
    Letter,
    Selection,
    dead_headers,
    letter_of,
    redriven_headers,
    settled_by,
)
from pipeline.kafka.records import value_of
from pipeline.kafka.redriving import Settled
from schemas.events import DeadLetterDropped
from tests.unit.cli.conftest import Command, FakeClient

EVENT_ID = uuid4()
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def record(headers: Any = (), topic: str = "memory.classified", value: bytes = b"value") -> Any:
    return ConsumerRecord(
        topic, 2, 17, 1_769_860_800_000, 0, b"k", value, None, 1, 5, tuple(headers)
    )


def dead(headers: Any = ()) -> Any:
    own = dead_headers(record(headers), stage="embedder", reason="no vector", now=AT)
    return record(own, "memory.dead")


def test_it_tells_when_where_and_why():
    assert told(letter_of(dead([("event-id", str(EVENT_ID).encode())]))) == {
        "place": "2/17",
        "at": AT.isoformat(),
        "stage": "embedder",
        "topic": "memory.classified",
        "partition": 2,
        "offset": 17,
        "reason": "no vector",
        "event_id": str(EVENT_ID),
        "redriven": 0,
        "cut": [],
        "bytes": 5,
    }


def test_headers_that_are_no_text_break_nothing():
    odd = [("dead-stage", b"\xff"), ("dead-offset", "²".encode()), ("odd", None)]
    found = told(letter_of(record(odd)))
    assert (found["offset"], found["topic"], found["event_id"]) == (None, None, None)
    assert found["at"] == AT.isoformat()


def test_what_is_redriven_has_its_own_headers_and_a_count():
    once = redriven_headers(letter_of(dead([("event-id", b"7")])))
    assert once == [("event-id", b"7"), ("redriven", b"1")]
    assert redriven_headers(letter_of(dead(once))) == [("event-id", b"7"), ("redriven", b"2")]


def test_why_a_letter_was_left_is_the_reason_it_has():
    large = why_left(Settled(3, too_large=[letter_of(dead())]))
    assert "1 too large for Kafka" in large
    assert "came from" not in large
    both = why_left(Settled(3, [letter_of(record())] * 2, [letter_of(dead())]))
    assert "2 without a topic of this stack that they came from (the first is 2/17); 1 too" in both


def test_what_was_cut_is_told_and_why_it_is_not_sent_back():
    letter = letter_of(dead([("dead-cut", b"spoofed")]))
    assert letter.cut == ()
    letter = letter_of(
        record(dead_headers(record(value=b"0" * 3_000_000), stage="s", reason="r", now=AT))
    )
    assert (letter.cut, told(letter)["cut"], described(letter)["cut"]) == (
        ("value",),
        ["value"],
        "value",
    )
    assert "1 cut when set aside" in why_left(Settled(0, cut=[letter]))


def test_what_settles_a_letter_is_no_letter_itself():
    mark = value_of(DeadLetterDropped(offset=4, at=AT))
    assert settled_by(record(value=mark)) == (2, 4)
    # A message that failed may look like one.
    assert (
        settled_by(record(dead_headers(record(), stage="s", reason="r", now=AT), value=mark))
        is None
    )
    assert settled_by(record(value=b"\xff")) is None


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), True),
        (Selection(places=[letter_of(dead()).place]), True),
        (Selection(places=[]), False),
        (Selection(stage="embedder", reason="NO VEC"), True),
        (Selection(stage="embed"), False),
        (Selection(since=AT, until=AT), False),
        (Selection(since=AT), True),
    ],
)
def test_a_selection_takes_what_meets_all_of_it(selection: Selection, taken: bool):
    assert selection.takes(letter_of(dead())) == taken


@pytest.fixture
def letters(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    async def open_letters(_: object, __: str, selection: Selection) -> AsyncGenerator[Letter]:
        for letter in map(letter_of, found):
            if selection.takes(letter):
                yield letter

    monkeypatch.setattr("pipeline.kafka.redriving.open_letters", open_letters)
    return found


def test_they_are_listed(command: Command, letters: list[Any]):
    letters.append(dead())
    shown = command("dead", "list").stdout
    for expected in ("2/17", "embedder", "memory.classified/2/17", "no vector", "1 in all"):
        assert expected in shown


def test_a_narrow_terminal_breaks_no_word_of_them(
    command: Command, letters: list[Any], monkeypatch: pytest.MonkeyPatch
):
    out = StringIO()
    terminal = Console(file=out, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("pipeline.cli.printing._out", terminal)
    far = record(topic="memory.operator.asked")
    letters.append(
        record(dead_headers(far, stage="contextualizer", reason="no vector " * 9, now=AT))
    )
    command("dead", "list")
    assert "contextualizer  memory.operator.asked/" in out.getvalue()


def test_none_is_said(command: Command, letters: list[Any]):
    assert command("dead", "list").stdout.strip() == "No dead letters."
    assert command("dead", "list", "--json").stdout == ""


@pytest.mark.parametrize("doing", [["list"], ["list", "--json"], ["redrive"], ["drop"]])
def test_a_stage_that_is_none_is_refused(command: Command, letters: list[Any], doing: list[str]):
    letters.append(dead())
    result = command("dead", *doing, "--stage", "clasifier")
    assert result.exit_code == 2
    assert "No such stage: clasifier. There are classifier, " in " ".join(result.stderr.split())
    assert command("dead", *doing, "--stage", "classifier").exit_code == 0


def test_one_is_shown_with_what_it_holds(command: Command, letters: list[Any]):
    letters.append(dead())
    shown = command("dead", "show", "2/17").stdout
    assert "no vector" in shown
    assert "value" in shown
    assert command("dead", "show", "2/17", "--raw").stdout == "value"


def test_one_that_is_not_there_is_said(command: Command, letters: list[Any]):
    result = command("dead", "show", "0/1")
    assert result.exit_code == 2
    assert "No dead letter is at 0/1" in result.stderr


@pytest.mark.parametrize("doing", ["redrive", "drop"])
@pytest.mark.parametrize("chosen", [[], ["--all", "--stage", "embedder"], ["seventeen"]])
def test_which_ones_must_be_said(
    command: Command, letters: list[Any], doing: str, chosen: list[str]
):
    letters.append(dead())
    result = command("dead", doing, *chosen)
    assert result.exit_code == 2
    assert "2/17" in result.stderr


def test_a_dry_run_only_tells(command: Command, letters: list[Any]):
    letters.append(dead())
    assert "2/17" in command("dead", "drop", "--all", "--dry-run").stdout


def test_people_are_told_what_is_known_and_nothing_else():
    about = described(letter_of(dead()))
    assert list(about) == ["place", "set aside", "stage", "was at", "why", "key", "holds"]
    assert (about["was at"], about["why"], about["holds"]) == (
        "memory.classified/2/17",
        "no vector",
        "5 bytes",
    )


def test_what_it_holds_is_told_field_by_field():
    assert content(b'{"text": "a\\nb", "n": {"x": 1}}') == {"text": '"a\\nb"', "n": '{"x": 1}'}
    assert content(b"\xffabc") == {"": "\\xffabc"}
    (vector,) = content(b'{"vector": "%s"}' % (b"x" * 100_000)).values()
    assert len(vector) < 3_000
