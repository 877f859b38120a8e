"""A terminal of 80 columns breaks no word and hides none."""

import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import typer.rich_utils
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from pipeline.cli import printing
from pipeline.cli.checks import Part
from pipeline.cli.commands import app
from pipeline.cli.printing import show
from pipeline.cli.stages import list_stages
from pipeline.cli.status import Status, picture

NARROW, WIDE = 80, 250
DSN = "postgresql://hybrid_memory:***@127.0.0.1:26089/hybrid_memory"


def pages(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, sub in getattr(command, "commands", {}).items():
        yield from pages(sub, (*path, name))


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\s│╭╮╰╯─]+", text))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(file=StringIO(), width=NARROW, force_terminal=True, color_system=None)
    monkeypatch.setattr(printing, "_out", console)
    return console


def shown(terminal: Console) -> set[str]:
    assert isinstance(terminal.file, StringIO)
    return words(terminal.file.getvalue())


def test_no_help_page_breaks_a_word(monkeypatch: pytest.MonkeyPatch):
    def page(path: tuple[str, ...], width: int) -> str:
        monkeypatch.setattr(typer.rich_utils, "MAX_WIDTH", width)
        return CliRunner().invoke(app, [*path, "--help"]).output

    broken = {
        path: words(page(path, NARROW)) - words(page(path, WIDE))
        for path in pages(get_command(app))
    }
    assert len(broken) > 20
    assert {path: of_it for path, of_it in broken.items() if of_it} == {}


def test_topics_are_whole(terminal: Console):
    list_stages()
    assert {"memory.search.answered,", "memory.operator.asked", "conversation"} <= shown(terminal)


def test_addresses_are_whole(terminal: Console):
    parts = [Part("Postgres", DSN, True), Part("Index", "Edge in /here", True, "in process 26631")]
    show(picture(Status(parts, stages=[], record=1, index=1, dead_letters=0)))
    assert {DSN, "/here", "26631"} <= shown(terminal)
