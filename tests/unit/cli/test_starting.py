"""Where no line can change, a start is told in few plain lines."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cli import starting
from pipeline.cli.meter import Meter
from pipeline.cli.serving import last_said
from pipeline.cli.starting import Starting
from pipeline.embedded import Progress

PHASES = ("ready", "preparing", "loading", "loading", "loading")


def told(captured: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in captured.readouterr().err.splitlines()]


def test_a_line_for_each_part_that_is_ready(capsys: pytest.CaptureFixture[str]):
    with Starting() as watching:
        watching(Progress("kafka", "preparing", ""))
        watching(Progress("kafka", "starting", ""))
        watching(Progress("kafka", "ready", "in 2.1 s"))
    assert told(capsys) == ["kafka ready in 2.1 s"]


def test_a_stage_is_ready_when_it_serves(capsys: pytest.CaptureFixture[str]):
    with Starting() as watching:
        watching.stages = frozenset({"embedder"})
        watching(Progress("embedder", "running", "process 7"))
        watching.serves("embedder")
    (line,) = told(capsys)
    assert line.startswith("embedder ready in")


def test_long_work_is_told_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(starting, "SAY_EVERY_S", 0.0)
    with Starting() as watching:
        watching(Progress("kafka", "preparing", "fetching Kafka's jars, 3 of 46"))
        watching.waits({"embedder": ""})
        watching.waits({"embedder": "measuring"})
        watching.waits({"embedder": "measuring"})
    assert told(capsys) == [
        "kafka preparing fetching Kafka's jars, 3 of 46",
        "still starting: embedder",
        "still starting: embedder (measuring)",
    ]


def test_those_who_wait_for_the_same_are_told_together(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(starting, "SAY_EVERY_S", 0.0)
    with Starting() as watching:
        watching.waits({"record_writer": "No Postgres.", "embedder": "", "query": "No Postgres."})
    assert told(capsys) == ["still starting: record_writer, query (No Postgres); embedder"]


def test_a_start_that_is_stopped_says_that_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(starting, "SAY_EVERY_S", 0.0)
    with Starting() as watching:
        watching(Progress("embedder", "stopping", ""))
        watching.waits({"embedder": "stopped"})
    assert told(capsys) == ["Stopping: the parts that were started end."]


def test_afterwards_only_trouble_and_its_end_are_told(capsys: pytest.CaptureFixture[str]):
    with Starting() as watching:
        watching.stages = frozenset({"embedder", "classifier"})
        watching.finish()
        watching(Progress("embedder", "died", "killed by SIGKILL; starts again in 1 s"))
        watching(Progress("embedder", "starting", ""))
        watching(Progress("embedder", "running", "process 8"))
        watching(Progress("classifier", "running", "process 9"))
        watching(Progress("kafka", "died", "ended with exit code 1; starts again in 0.5 s"))
        watching(Progress("kafka", "ready", "in 2.1 s"))
        watching(Progress("embedder", "stopping", ""))
        watching(Progress("classifier", "stopping", ""))
    assert told(capsys) == [
        "embedder died: killed by SIGKILL; starts again in 1 s",
        "embedder runs again: process 8",
        "kafka died: ended with exit code 1; starts again in 0.5 s",
        "kafka is ready again: in 2.1 s",
        "Stopping: each stage finishes its batch, then the parts end.",
    ]


def test_a_load_is_told_in_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.cli.meter.SAY_EVERY_S", 0.0)
    with Meter(100) as meter:
        meter.accepted(50)
        meter.stored(25)
    first, second = told(capsys)
    assert first.startswith("50 of 100 accepted, 0 stored, ")
    assert second.startswith("50 of 100 accepted, 25 stored, ")
    assert second.endswith("left")


def test_what_was_rejected_is_not_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.cli.meter.SAY_EVERY_S", 0.0)
    with Meter(101) as meter:
        meter.accepted(101, left_out=1)
        meter.stored(100)
    line = told(capsys)[-1]
    assert line.startswith("100 of 100 accepted, 100 stored, ")
    assert not line.endswith("left")


def test_the_bars_end_full_where_some_was_rejected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.cli.meter.interactive", lambda: True)
    with Meter(101, done=40) as meter:
        meter.accepted(101, left_out=1)
        meter.stored(60)
        assert meter._bars is not None  # pyright: ignore[reportPrivateUsage]
        bars = [(bar.completed, bar.total) for bar in meter._bars.tasks]  # pyright: ignore[reportPrivateUsage]
    assert bars == [(100, 100), (60, 60)]


def test_what_reads_elsewhere_is_said_to_run_and_not_to_be_ready(
    capsys: pytest.CaptureFixture[str],
):
    with Starting() as watching:
        watching.sources = frozenset({"mem0"})
        watching(Progress("mem0", "running", "process 7"))
        (line,) = told(capsys)
    assert line.split() == ["mem0", "running", "process", "7"]


def test_why_a_part_does_not_start_is_left_to_the_error_that_ends_it(
    capsys: pytest.CaptureFixture[str],
):
    why = "ended with exit code 1\nThe end of its log:\nNo space left"
    with Starting() as watching:
        watching(Progress("kafka", "refused", why))
        watching(Progress("valkey", "ready", "in 0.1 s"))
        watching(Progress("valkey", "refused", why))
        watching(Progress("kafka", "stopped", ""))
    first, _, third, *rest = told(capsys)
    assert first == "kafka refused ended with exit code 1"
    assert third == "valkey refused ended with exit code 1"
    assert rest == [
        "The end of its log:",
        "No space left",
        "Stopping: the parts that were started end.",
    ]


def test_each_stage_of_a_process_has_a_line(capsys: pytest.CaptureFixture[str]):
    with Starting() as watching:
        watching.waits({"vector_writer+query": ""})
        watching.serves("vector_writer+query")
    assert [line.split()[:2] for line in told(capsys)] == [
        ["vector_writer", "ready"],
        ["query", "ready"],
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_columns_of_a_terminal_stand_below_each_other(
    monkeypatch: pytest.MonkeyPatch, width: int
):
    terminal = Console(
        file=StringIO(), width=width, height=24, force_terminal=True, no_color=True, record=True
    )
    monkeypatch.setattr(starting, "errors", lambda: terminal)
    monkeypatch.setattr(starting, "interactive", lambda: True)
    with Starting() as watching:
        watching.stages = frozenset({"embedder", "vector_writer+operator_desk"})
        watching(Progress("kafka", "ready", "in 2.1 s"))
        watching(Progress("postgres", "preparing", "making " + "the database cluster " * 9))
        watching(Progress("embedder", "running", "process 7"))
        watching.waits({"vector_writer+operator_desk": "measuring"})
    shown = terminal.export_text().splitlines()[-5:]
    assert [line.split()[0] for line in shown] == [
        "kafka",
        "postgres",
        "embedder",
        "vector_writer",
        "operator_desk",
    ]
    assert {line.index(word) for line, word in zip(shown, PHASES, strict=True)} == {18}
    assert [line[29:].split(" ")[0] for line in shown] == ["in", "making", "", *["measuring"] * 2]


def test_what_a_stage_said_in_an_earlier_life_is_no_news(tmp_path: Path):
    log = tmp_path / "embedder.log"
    log.write_text("2026-01-31T12:00:00.5Z [info     ] measuring backends     model=m\n")
    noon = 1769860800.0
    assert last_said(log, noon) == "measuring backends"
    assert last_said(log, noon + 1) == ""
    log.write_text(
        "2026-01-31T12:00:00.5Z [warning  ] waiting for a neighbour  reason='No Postgres: it is away.'\n"
    )
    assert last_said(log, noon) == "", "it may come any moment"
    assert last_said(log, noon, troubled=True) == "No Postgres: it is away."
    assert last_said(log, noon + 1, troubled=True) == ""
    log.write_text("Traceback (most recent call last): [info]\n")
    assert last_said(log, noon) == ""
