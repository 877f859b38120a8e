"""Who runs stages in a terminal sees what they are at; a machine reads logs and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import Addresses
from pipeline.cli.beginning import in_words
from pipeline.kafka.connection import KafkaConnection
from pipeline.settings import Settings
from tests.unit.cli.conftest import Command

WHERE = Addresses(KafkaConnection("k:1"), "postgresql://u:secret@h/d", None, None, Path("there"))


@pytest.fixture
def stages(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that are ready as soon as they have gone through their steps."""

    async def run(
        *_: Any, on_step: Callable[[str], None], on_ready: Callable[[], None], **__: Any
    ) -> None:
        for step in ("topics", "classifier", "records", "joining"):
            on_step(step)
        on_ready()

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "k:1")
    monkeypatch.setattr("pipeline.app.run", run)


@pytest.mark.usefixtures("stages")
def test_a_person_sees_each_step_and_what_flows(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.cli.beginning.interactive", lambda: True)
    result = command("run", "classifier", "mem0")
    told = [" ".join(line.split()) for line in result.stderr.splitlines() if "[info" not in line]
    assert result.exit_code == 0
    assert told[0] == "Starting classifier, mem0."
    assert told[1].startswith("Connecting to Kafka at k:1")
    assert told[2].startswith("Opening the record")
    assert "classifier ready reads memory.events, writes memory.classified" in told
    assert any(line.startswith("mem0 ready reads Mem0, writes memory.events") for line in told)
    assert told[-1].startswith("Ctrl-C stops it")


@pytest.mark.usefixtures("stages")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_machine_gets_its_log_alone(command: Command, monkeypatch: pytest.MonkeyPatch, form: str):
    monkeypatch.setattr("pipeline.cli.beginning.interactive", lambda: form == "json")
    monkeypatch.setenv("LOG_FORMAT", form)
    lines = command("run", "classifier").stderr.splitlines()
    mark = "[info" if form == "text" else '"level": "info"'
    assert len(lines) == 2, "ready, and stopped"
    assert all(mark in line for line in lines)


def test_no_password_is_told(home: Path):
    words = in_words("records", Settings(), WHERE)
    assert "secret" not in words
    assert "postgresql://u:***@h/d" in words


def test_what_takes_no_time_is_not_told(home: Path):
    assert in_words("weights", Settings(), WHERE) == ""
    assert in_words("rereading", Settings(), WHERE) == ""
    assert in_words("caches", Settings(), WHERE) == ""
