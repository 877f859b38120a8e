"""What a process says in its log is read in both forms that it may have."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from pipeline.cli.logs import Format, configure
from pipeline.embedded.logged import last_reason, logged

REASON = '7 of 9 have gone: start it with ALLOW=7@a, or "look" why it\'s so\nthere'


@pytest.fixture
def unchanged() -> Iterator[None]:
    """Logs are as they were afterwards."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_was_written_is_read(capsys: pytest.CaptureFixture[str], form: Format):
    configure("info", form)
    log = structlog.get_logger().bind(stages=["mem0"])
    log.critical("cannot run", reason=REASON)
    log.info("alice: 7 added, 1 updated, and more than fits", took_s=2.0)
    log.info("stopped")
    lines = capsys.readouterr().err.splitlines()
    read = [said for line in lines if (said := logged(line))]
    assert [(said.level, said.event, said.reason) for said in read] == [
        ("critical", "cannot run", REASON),
        ("info", "alice: 7 added, 1 updated, and more than fits", ""),
        ("info", "stopped", ""),
    ]
    assert abs((datetime.now(UTC) - read[0].at).total_seconds()) < 60
    assert last_reason(lines) == REASON


@pytest.mark.parametrize(
    "line", ["", "Traceback (most recent call last):", "{", "{}", "[1]", "a [b] c", '{"level": 7}']
)
def test_what_others_write_is_none_of_ours(line: str):
    assert logged(line) is None
    assert last_reason([line]) == ""
