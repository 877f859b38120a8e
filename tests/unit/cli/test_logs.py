"""What a library repeats is told once in a while, and how often it was."""

import logging

import pytest
import structlog

from pipeline.cli.logs import Format, OnceInAWhile, configure


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Told(logging.Handler):
    """Keeps the messages that come through."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.addFilter(OnceInAWhile(pause_s=30, clock=clock))
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told(clock: Clock) -> Told:
    return Told(clock)


def say(told: Told, message: str, *arguments: object, library: str = "aiokafka") -> None:
    told.handle(logging.LogRecord(library, logging.WARNING, "", 0, message, arguments, None))


def test_a_message_is_told_once_whatever_its_arguments(told: Told):
    for node in range(100):
        say(told, "Unable to connect to node %s", node)
        say(told, f"Node {node} is away")
    say(told, "Something else")
    assert told.messages == ["Unable to connect to node 0", "Node 0 is away", "Something else"]


def test_later_it_is_told_again_with_how_many_were_left_out(told: Told, clock: Clock):
    for clock.now in (0.0, 10.0, 20.0, 31.0, 62.0):
        say(told, "Node %s is away", 1)
    assert told.messages == [
        "Node 1 is away",
        "Node 1 is away (and 2 more like it were left out)",
        "Node 1 is away",
    ]


def test_loggers_do_not_silence_each_other(told: Told):
    for library in ("aiokafka", "another"):
        say(told, "Away", library=library)
    assert len(told.messages) == 2


@pytest.mark.parametrize(
    ("form", "users", "numbers"), [("text", 1, 0), ("json", 2, 1)], ids=["text", "json"]
)
def test_numbers_beside_a_sentence_are_for_programs(
    capsys: pytest.CaptureFixture[str], form: Format, users: int, numbers: int
):
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure("info", form)
        structlog.get_logger().info(
            "alice: 7 added", beside={"user": "alice", "added": 7}, took_s=2
        )
    finally:
        structlog.configure(**before)
        root.handlers = handlers
        root.setLevel(level)
    said = capsys.readouterr().err
    assert (said.count("alice"), said.count('"added": 7')) == (users, numbers)
    assert "took_s" in said
    assert "beside" not in said
