"""Errors are one line that says what to do, with a code a shell can act on."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.cli.commands import exit_code, missing
from pipeline.errors import Halted, Missing, PipelineError, Refused, Unavailable, Unusable
from tests.unit.cli.conftest import Command, FakeClient

HEAVY = ("torch", "faststream", "asyncpg", "qdrant_client", "qdrant_edge", "openvino", "numpy")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(""), 2),
        (Missing(""), 1),
        (Unusable(""), 65),
        (Unavailable(""), 75),
        (Halted(""), 78),
    ],
)
def test_the_exit_code_is_the_remedy(error: PipelineError, code: int):
    assert exit_code(error) == code


def test_no_stack_is_one_line_on_standard_error(command: Command):
    result = command("add", "hi", "--user", "alice")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "hybrid-memory up" in line


@pytest.mark.parametrize(
    "typed",
    [("add", "hi"), ("search", "hi"), ("get", "m1"), ("tail",), ("import", "-"), ("prune",)],
)
@pytest.mark.parametrize("user", ["", "  "])
def test_an_empty_user_is_told_by_the_name_of_its_option(
    command: Command, typed: tuple[str, ...], user: str
):
    result = command(*typed, "--user", user)
    assert result.exit_code == 2
    assert "'--user'" in result.stderr
    assert "is empty" in result.stderr
    assert "user_id" not in result.stderr


@pytest.mark.parametrize("typed", [("serch",), ("dead", "redrve"), ("docs", "schema")])
def test_a_command_that_is_not_there_brings_one_suggestion(command: Command, typed: tuple[str]):
    assert command(*typed).stderr.count("Did you mean") == 1


@pytest.mark.parametrize(
    ("typed", "code", "why"),
    [
        (("get", "nothing"), 1, "has no memory nothing"),
        (("search", "hi", "--filter", '{"topic": "food"}'), 2, "'topic' is not known here"),
    ],
)
def test_with_json_too_an_error_is_words_beside_the_output_and_a_code(
    command: Command, client: FakeClient, typed: tuple[str, ...], code: int, why: str
):
    result = command(*typed, "--user", "alice", "--json")
    assert (result.exit_code, result.stdout) == (code, "")
    assert why in result.stderr


def test_a_data_folder_without_a_stack_is_told(command: Command):
    result = command("search", "hi", "--user", "alice", "--data", "elsewhere")
    assert result.exit_code == 2
    assert "No stack runs on elsewhere" in result.stderr


def test_a_wrong_setting_is_told_by_its_name(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAFKA_PARTITIONS", "none")
    result = command("search", "hi", "--user", "alice")
    assert result.exit_code == 2
    assert "kafka_partitions" in result.stderr


def test_a_bug_is_no_error_of_the_callers(
    command: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch
):
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client, "get", broken)
    assert isinstance(command("get", "m1", "-u", "alice").exception, ZeroDivisionError)


def test_ctrl_c_is_quiet(command: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch):
    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "get", interrupted)
    result = command("get", "m1", "-u", "alice")
    assert (result.exit_code, result.output) == (130, "")


def test_a_missing_package_is_told_with_what_brings_it():
    told = missing(ModuleNotFoundError("no", name="asyncpg"))
    assert "asyncpg" in told
    assert "hybrid-memory[stages]" in told


@pytest.mark.parametrize(
    ("used", "heavy"),
    [
        ("pipeline.cli.commands", (*HEAVY, "pydantic", "aiokafka", "structlog", "yaml")),
        ("producers.client, pipeline.app, pipeline.contract.exporting", (*HEAVY, "yaml")),
    ],
)
def test_the_client_commands_start_without_heavy_packages(
    used: str, heavy: tuple[str, ...], project: Path
):
    program = f"import sys, {used}; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_version_is_that_of_the_package(command: Command):
    assert command("--version").stdout == f"hybrid-memory {version('hybrid-memory')}\n"


def test_ctrl_c_before_anything_has_begun_shows_no_trace(monkeypatch: pytest.MonkeyPatch):
    class Importing:
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "pipeline.cli.commands", Importing())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
