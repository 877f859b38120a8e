"""What is told can be used where it is told."""

import errno
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from pipeline.cli import printing
from pipeline.cli.printing import complain, own_name, show, tell, tell_a_log, untimed


def program(folder: Path) -> Path:
    file = folder / "hybrid-memory"
    folder.mkdir()
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_a_command_on_the_path_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = program(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(file.parent))
    monkeypatch.setattr("sys.argv", [str(file)])
    assert own_name() == "hybrid-memory"


def test_another_one_is_called_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin").parent))
    monkeypatch.setattr("sys.argv", [".venv/bin/hybrid-memory"])
    assert own_name() == ".venv/bin/hybrid-memory"


def test_what_is_told_to_a_log_has_its_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(printing, "_with_time", False)
    tell_a_log()
    tell("kafka ready")
    line = capsys.readouterr().err.rstrip()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ kafka ready", line)
    assert untimed(line) == "kafka ready"


def test_what_is_told_holds_no_commands_for_the_terminal(capsys: pytest.CaptureFixture[str]):
    for say in (show, tell, complain):
        say("m\x1b]0;title\x07 \u202eforged")
    told = capsys.readouterr()
    for stream in (told.out, told.err):
        assert not {"\x1b", "\x07", "\u202e"} & set(stream)
        assert "forged" in stream


def test_a_log_that_takes_nothing_more_ends_nothing(monkeypatch: pytest.MonkeyPatch):
    class Full(StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(printing, "_err", Console(file=Full()))
    monkeypatch.setattr(printing, "_with_time", False)
    with pytest.raises(OSError, match="No space left"):
        tell("kafka ready")
    tell_a_log()
    tell("kafka ready")


def test_a_table_that_no_terminal_shows_is_neither_wrapped_nor_filled_up(
    capsys: pytest.CaptureFixture[str],
):
    table = Table(box=None, show_header=False)
    table.add_row("1", "many words " * 50, "")
    table.add_row("2", "few words", "")
    show(table)
    first, second, end = capsys.readouterr().out.split("\n")
    assert first.endswith("many words " * 49 + "many words")
    assert second.endswith("few words")
    assert end == ""
