"""An application hears the client as it hears its other libraries."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from producers.logs import log_as_the_application_does
from tests.hearing import as_nobody_set_it_up


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    with as_nobody_set_it_up():
        yield


def test_it_prints_nothing_by_itself(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log_as_the_application_does()
    with caplog.at_level(logging.INFO, "producers.backlog"):
        structlog.get_logger("producers.backlog").info("waiting for the stages", behind=9)
    assert capsys.readouterr().out == ""
    assert caplog.record_tuples == [
        ("producers.backlog", logging.INFO, "waiting for the stages behind=9")
    ]


def test_where_no_logging_is_set_up_kafkas_client_prints_nothing_either(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger("aiokafka"), "handlers", [])
    log_as_the_application_does()
    logging.getLogger("aiokafka").error("Unable connect")
    assert capsys.readouterr().err == ""


def test_what_logging_leaves_out_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    log_as_the_application_does()
    with caplog.at_level(logging.ERROR, "producers.backlog"):
        structlog.get_logger("producers.backlog").warning("waiting for the stages")
    assert not caplog.records


def test_what_an_application_set_up_stays() -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    before = structlog.get_config()
    log_as_the_application_does()
    assert structlog.get_config() == before
