"""The README says what is so: settings, commands, files."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command

from pipeline.cli.commands import app
from pipeline.contract.json_schemas import field_docs
from pipeline.settings import Settings


@pytest.fixture(scope="module")
def readme(project: Path) -> str:
    return (project / "README.md").read_text("utf-8")


def settings_table() -> str:
    """Every setting, as the README lists it."""
    docs = field_docs(Settings)
    rows = [_row(name, field, docs.get(name, "")) for name, field in Settings.model_fields.items()]
    return "\n".join(["| variable | unless given | |", "|---|---|---|", *rows])


def _row(name: str, field: FieldInfo, about: str) -> str:
    choices = ", ".join(f"`{choice}`" for choice in _choices(field.annotation))
    told = " ".join(filter(None, [about, f"One of {choices}." if choices else ""]))
    return f"| `{name.upper()}` | {_default(field.default)} | {told} |".replace("  |", " |")


def _default(value: Any) -> str:
    if value in (None, PydanticUndefined):
        return ""
    return f"`{json.dumps(asdict(value)) if is_dataclass(value) and not isinstance(value, type) else value}`"


def _choices(annotation: Any) -> Iterable[str]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def test_the_settings_are_all_there(readme: str):
    assert settings_table() in readme, f"put this into README.md:\n\n{settings_table()}"


def test_every_command_in_it_exists(readme: str):
    commands: dict[str, Any] = vars(get_command(app))["commands"]
    used = re.findall(
        r"^(?:\$ )?(?:\.venv/bin/)?hybrid-memory ([a-z-]+)(.*)$", readme, re.MULTILINE
    )
    assert {name for name, _ in used} <= commands.keys()
    for name, rest in used:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", rest)) <= options | {"--help"}, name


def test_every_target_of_make_in_it_exists(readme: str, project: Path):
    targets = set(
        re.findall(r"^([a-z]+):", (project / "Makefile").read_text("utf-8"), re.MULTILINE)
    )
    assert set(re.findall(r"`make ([a-z]+)", readme)) <= targets


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_every_link_leads_somewhere(page: str, project: Path):
    text = (project / page).read_text("utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert not [link for link in links if not (project / link).exists()]


def test_every_path_that_the_map_names_is_there(project: Path):
    text = (project / "ARCHITECTURE.md").read_text("utf-8")
    paths = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_.]+)?)`", text))
    assert paths
    assert not [path for path in paths if not (project / path).exists()]


def test_the_map_fits_on_a_few_screens(project: Path):
    assert len((project / "ARCHITECTURE.md").read_text("utf-8").splitlines()) < 150


def test_a_decision_says_why(project: Path):
    decisions = sorted((project / "docs/decisions").glob("[0-9]*.md"))
    numbers = [file.name[:4] for file in decisions]
    assert len(set(numbers)) == len(numbers) > 0
    for file in decisions:
        text = file.read_text("utf-8")
        assert re.findall(r"^## (\w+)", text, re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
        ]
