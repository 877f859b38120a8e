"""Applications install the distribution without extras: the client and the command line need no more."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAVY = {"torch", "transformers", "sentence_transformers", "openvino", "numpy", "asyncpg"} | {
    "sqlalchemy",
    "qdrant_client",
    "qdrant_edge",
    "faststream",
    "redis",
}

REFUSING = """
import sys, json
absent = set(json.loads(sys.argv[1]))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def brought_by(requirements: Iterable[str], extras: frozenset[str] = frozenset()) -> set[str]:
    """The distributions that these requirements bring along, by canonical name."""
    brought: set[str] = set()
    for requirement in map(Requirement, requirements):
        wanted = [{"extra": extra} for extra in (*extras, "")]
        if requirement.marker and not any(map(requirement.marker.evaluate, wanted)):
            continue
        name = canonicalize_name(requirement.name)
        try:
            its_own = requires(name) or []
        except PackageNotFoundError:
            continue
        brought |= {name} | brought_by(its_own, frozenset(requirement.extras))
    return brought


@pytest.fixture(scope="module")
def absent(project: Path) -> list[str]:
    """The modules that are installed here, and are not where there are no extras."""
    own = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    there = brought_by(own["dependencies"]) | {"hybrid-memory"}
    return [
        module
        for module, distributions in packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & there
    ]


def run_without(absent: list[str], program: str, project: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", REFUSING + program, json.dumps(absent)],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_extras_the_heavy_packages_are_absent(absent: list[str]):
    assert set(absent) >= HEAVY


@pytest.mark.parametrize(
    "module",
    [
        "producers.client",
        "producers.receipts",
        "pipeline.settings",
        "pipeline.app",
        "pipeline.contract.exporting",
        "pipeline.cli",
    ],
)
def test_it_is_imported_without_extras(absent: list[str], module: str, project: Path):
    run_without(absent, f"import {module}", project)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], "hybrid-memory"),
        (["stages"], "memory.classified"),
        (["docs", "asyncapi"], "asyncapi: 3.0.0"),
        (["search", "--help"], "--user"),
        (["import", "--help"], "FILE"),
    ],
)
def test_a_command_runs_without_extras(
    absent: list[str], arguments: list[str], told: str, project: Path
):
    program = f"sys.argv[1:] = {arguments!r}; from pipeline.cli import main; main()"
    assert told in run_without(absent, program, project)


def test_the_client_says_that_nobody_answers_without_extras(absent: list[str], project: Path):
    program = """
import asyncio
from pipeline.errors import Unavailable
from producers.client import MemoryClient

async def main():
    try:
        async with MemoryClient("127.0.0.1:1"):
            pass
    except Unavailable as error:
        print(error)

asyncio.run(main())
"""
    assert "Kafka at 127.0.0.1:1 does not answer" in run_without(absent, program, project)
