"""up, down, run, stages: what is planned, and what is refused."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from pipeline.cli import printing
from pipeline.cli.borrowed import borrowed_stack
from pipeline.cli.printing import untimed
from pipeline.cli.serving import until_serving
from pipeline.cli.stack import following, masked, plan, scarce
from pipeline.cli.starting import Starting
from pipeline.embedded import Plan, Progress, Stack, postgres_node, valkey_node
from pipeline.embedded.state import PartState
from pipeline.errors import Halted, PipelineError, Refused, Unavailable
from pipeline.models.classifier import lexicon
from pipeline.settings import Settings
from tests.unit.cli.conftest import Command


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("redis://:s%40t@h:6379/0", "redis://:***@h:6379/0"),
        ("http://h:6333", "http://h:6333"),
        ("h:9092,i:9092", "h:9092,i:9092"),
        ("Qdrant Edge in /a/b", "Qdrant Edge in /a/b"),
        ("http://[oops", "(an address that cannot be read)"),
    ],
)
def test_passwords_are_not_shown(address: str, shown: str):
    assert masked(address) == shown


def test_what_a_poller_does_is_not_promised():
    assert "looked at from now on" in following("http://mem0", PartState(7))
    refused = following("http://mem0", PartState(None, halted="218 of 218\nhave disappeared"))
    assert refused == "http://mem0, not followed: 218 of 218 have disappeared"


def test_a_part_that_the_settings_name_is_not_started(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://u:p@h/d")
    made = plan(home, Settings(), {"kafka": 9092}, None)
    assert made.postgres_dsn == "postgresql://u:p@h/d"
    assert (made.kafka_bootstrap_servers, made.redis_url) == (None, None)
    assert made.ports == {"kafka": 9092}


def test_two_brokers_are_refused_with_what_to_take(command: Command):
    result = command("up", "--brokers", "2")
    assert result.exit_code == 2
    assert "--brokers takes 1 or 3" in result.stderr


def test_nothing_to_stop_is_said(command: Command):
    result = command("down")
    assert result.exit_code == 0
    assert "No stack runs here." in result.stderr


def test_an_unknown_stage_is_refused_with_the_known_ones(command: Command):
    result = command("run", "clasifier")
    assert result.exit_code == 2
    assert "No such stage: clasifier. There are classifier, embedder" in result.stderr


def test_a_stage_without_a_stack_cannot_start(command: Command):
    result = command("run", "classifier")
    assert result.exit_code == 78
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr


def test_stages_tell_what_flows_from_where_to_where(command: Command):
    told = [json.loads(line) for line in command("stages", "--json").stdout.splitlines()]
    assert {
        "stage": "record_writer",
        "reads": "memory.enriched",
        "writes": ["Postgres", "memory.stored", "memory.enriched", "memory.events"],
        "about": "keep the record.",
    } in told
    assert "classifier" in command("stages").stdout


def test_topics_have_the_prefix_that_is_set(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOPIC_PREFIX", "team")
    assert "team.classified" in command("stages").stdout


@pytest.mark.parametrize("document", [("asyncapi",), ("asyncapi", "-f", "json"), ("schemas",)])
def test_the_contract_is_printed(command: Command, document: tuple[str, ...]):
    result = command("docs", *document)
    assert result.exit_code == 0
    assert "MemoryEnriched" in result.stdout


@pytest.mark.parametrize("how", ["--detach", "--no-stages"])
def test_a_file_is_no_data_folder(command: Command, home: Path, how: str):
    (home / "notes").write_text("")
    result = command("up", "--data", "notes", how)
    assert result.exit_code == 2
    assert "notes cannot be a data folder: it is a file" in result.stderr


@pytest.mark.parametrize(("error", "code"), [(Unavailable, 75), (Refused, 2)])
def test_what_a_stack_in_the_background_says_is_said_once_and_without_its_time(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: type[PipelineError], code: int
):
    line = "2026-01-31T12:00:00Z kafka cannot have the port."

    def detach(*_: object, on_line: Callable[[str], None]) -> None:
        on_line(line)
        raise error(f"The stack did not start. The end of its log:\n{line}")

    monkeypatch.setattr("pipeline.embedded.detach", detach)
    result = command("up", "--detach", "--data", "there")
    assert result.exit_code == code
    first, second = result.stderr.splitlines()
    assert first == untimed(line) == "kafka cannot have the port."
    assert second.startswith("The stack did not start. What it said stands above, and in ")


def test_the_topics_of_memories_are_listed(command: Command):
    told = [json.loads(line) for line in command("docs", "topics", "--json").stdout.splitlines()]
    assert {"coding", "business", "other"} == {topic["domain"] for topic in told}
    assert [topic["topic"] for topic in told] == list(lexicon().topics)
    assert "food" in command("docs", "topics").stdout


async def test_beside_a_stack_on_other_data_one_is_started_that_stands_aside(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    started: list[Plan] = []
    users = Stack(home / "a", 1, 0.0, "k:1", "", "", home)

    def discover(data: Path | None = None) -> Stack | None:
        return users if data in (None, home / "a") else None

    @asynccontextmanager
    async def running(made: Plan, **_: object) -> AsyncGenerator[Stack]:
        started.append(made)
        yield Stack(made.data, 1, 0.0, "k:2", "", "", home)

    async def until_serving(*_: object) -> None: ...

    monkeypatch.setattr("pipeline.embedded.discover", discover)
    monkeypatch.setattr("pipeline.embedded.running", running)
    monkeypatch.setattr("pipeline.cli.borrowed.until_serving", until_serving)
    async with borrowed_stack(home / "b", Settings()) as stack:
        assert stack.data == home / "b"
    assert [made.aside for made in started] == [True]
    async with borrowed_stack(home / "a", Settings()) as stack:
        assert stack is users
    assert len(started) == 1


def test_the_log_of_the_background_tells_when_each_stage_serves_and_runs_again(
    command: Command, home: Path, monkeypatch: pytest.MonkeyPatch
):
    async def run(
        plan: Plan, *, on_progress: Callable[[Progress], None], on_ready: Callable[[Stack], None]
    ) -> None:
        stack = Stack(plan.data, 1, 0.0, "k:1", "", "", home)
        on_progress(Progress("kafka", "ready", "in 2.1 s"))
        for stage in plan.stages(stack):
            on_progress(Progress(stage.name, "running", "process 7"))
        on_ready(stack)
        await asyncio.sleep(0.01)
        on_progress(Progress("classifier", "died", "killed by SIGKILL; starts again in 1 s"))
        on_progress(Progress("classifier", "running", "process 8"))

    async def until_serving(_: object, __: object, stages: frozenset[str], starting: Starting):
        for stage in sorted(stages):
            starting.serves(stage)

    monkeypatch.setattr(printing, "_with_time", False)  # and off again at the end
    monkeypatch.setattr("pipeline.embedded.run", run)
    monkeypatch.setattr("pipeline.cli.stack.until_serving", until_serving)
    told = command("up", "--in-background", "--data", "there").stderr.splitlines()
    ready = [untimed(line).split()[:2] for line in told if "ready" in line]
    assert ready[0] == ["kafka", "ready"]
    assert ["classifier", "ready"] in ready
    assert ["tier_writer", "ready"] in ready
    assert ready[-1] == ["ready"]
    assert untimed(told[-2]) == "classifier runs again: process 8"


@pytest.mark.parametrize("background", [(), ("--in-background",)])
def test_ctrl_c_while_stages_load_says_that_it_stops_and_no_more(
    command: Command, monkeypatch: pytest.MonkeyPatch, home: Path, background: tuple[str, ...]
):
    async def run(
        plan: Plan, *, on_progress: Callable[[Progress], None], on_ready: Callable[[Stack], None]
    ) -> None:
        on_ready(Stack(plan.data, 1, 0.0, "k:1", "", "", home))
        on_progress(Progress("embedder", "stopping", ""))
        await asyncio.sleep(0.01)

    async def until_serving(*_: object) -> None:
        raise Unavailable("Kafka at k:1 does not answer. Is it running?")

    monkeypatch.setattr(printing, "_with_time", False)
    monkeypatch.setattr("pipeline.embedded.run", run)
    monkeypatch.setattr("pipeline.cli.stack.until_serving", until_serving)
    told = command("up", *background, "--data", "there").stderr.splitlines()
    assert [untimed(line).split()[0].rstrip(":.") for line in told] == ["Stopping", "Stopped"]


@pytest.fixture
def detached(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """`up --detach` gets as far as the stages; the data folders of what was stopped again."""
    stopped: list[Path] = []

    def detach(_: object, data: Path, **__: object) -> Stack:
        return Stack(data, 1, 0.0, "k:1", "", "", home)

    monkeypatch.setattr("pipeline.embedded.detach", detach)
    monkeypatch.setattr("pipeline.embedded.stop", stopped.append)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield stopped
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("ended_by", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "Not started. What was started has ended"),
        (
            Unavailable("embedder does not run."),
            75,
            "embedder does not run.\nWhat was started has ended",
        ),
    ],
)
def test_a_start_in_the_background_that_ends_early_leaves_nothing_running(
    command: Command,
    detached: list[Path],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    ended_by: BaseException,
    code: int,
    told: str,
):
    async def until_serving(*_: object) -> None:
        raise ended_by

    monkeypatch.setattr("pipeline.cli.stack.until_serving", until_serving)
    result = command("up", "--detach", "--data", "there")
    assert result.exit_code == code
    assert told in result.stderr
    assert detached == [home / "there"]


def test_ctrl_c_on_data_that_another_stack_holds_leaves_that_one_alone(
    command: Command, detached: list[Path], monkeypatch: pytest.MonkeyPatch
):
    def detach(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.embedded.detach", detach)
    assert command("up", "--detach", "--data", "there").exit_code == 130
    assert detached == []


def test_a_full_disk_is_told_with_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch):
    def usage(free: int) -> Callable[[Path], SimpleNamespace]:
        return lambda _: SimpleNamespace(free=free)

    monkeypatch.setattr("shutil.disk_usage", usage(3 * 2**20))
    (line,) = scarce(home)
    assert "has 3 MiB left: make room there, or name another folder" in line
    monkeypatch.setattr("shutil.disk_usage", usage(3 * 2**30))
    assert scarce(home) == []


def test_a_model_that_is_not_there_starts_nothing(
    command: Command, detached: list[Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.embedded.detach", None)
    monkeypatch.setenv("EMBEDDING_MODEL", "/no/such/model")
    result = command("up", "--detach", "--data", "there")
    assert result.exit_code == 78
    assert "EMBEDDING_MODEL: there is no folder '/no/such/model'" in result.stderr
    assert detached == []


async def test_a_stage_that_cannot_run_as_configured_is_not_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    async def nobody(*_: object) -> dict[str, int]:
        return {}

    halted = Stack(home, 1, 0.0, "k:1", "", "", home, {"embedder": PartState(None, halted="why")})
    monkeypatch.setattr("pipeline.kafka.lag.group_members", nobody)
    monkeypatch.setattr("pipeline.embedded.discover", Mock(return_value=halted))
    with pytest.raises(Halted, match="embedder cannot run as configured: why"):
        await until_serving(halted, Settings(), ["embedder"], Starting())


@pytest.mark.parametrize("looked_for", [postgres_node.programs, valkey_node.program])
def test_a_part_that_is_not_installed_says_what_to_install(
    looked_for: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
):
    for node in (postgres_node, valkey_node):
        monkeypatch.setattr(node, "find_spec", Mock(return_value=None))
    with pytest.raises(Halted, match=r"pip install 'hybrid-memory\[embedded\]'"):
        looked_for()
