"""What is installed is what was locked: every package by its hashes, from any registry."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.cpu_lock import CUDA_ONLY, FROM_PYTORCH, cpu_lock


@pytest.fixture(scope="module")
def lock(project: Path) -> str:
    return (project / "requirements.lock").read_text("utf-8")


def pinned(lock: str) -> dict[str, tuple[Requirement, int]]:
    """Each package with the number of its hashes."""
    parts = re.findall(r"^([a-z0-9][^\n]*?)(?: \\)?\n((?:    [^\n]*\n)*)", lock, re.MULTILINE)
    requirements = [(Requirement(line), below.count("--hash=sha256:")) for line, below in parts]
    return {requirement.name: (requirement, hashes) for requirement, hashes in requirements}


def wanted(project: Path) -> Sequence[Requirement]:
    """What pyproject.toml asks for, extras and the development group included."""
    told = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    lists = [
        told["project"]["dependencies"],
        *told["project"]["optional-dependencies"].values(),
        *told["dependency-groups"].values(),
    ]
    named = [Requirement(line) for lines in lists for line in lines]
    return [requirement for requirement in named if requirement.name != "hybrid-memory"]


def test_every_package_has_its_hashes(lock: str):
    assert len(pinned(lock)) > 100
    assert not [name for name, (_, hashes) in pinned(lock).items() if hashes == 0]


def test_the_lock_fits_the_project(lock: str, project: Path):
    locked = {name: str(found.specifier)[2:] for name, (found, _) in pinned(lock).items()}
    for requirement in wanted(project):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"run `make lock`: {requirement} is not in it"
        assert requirement.specifier.contains(version), f"run `make lock`: {requirement}"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-uv.txt"])
def test_no_address_and_no_folder_is_in_the_lock(name: str, project: Path):
    text = (project / name).read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"index-url|find-links|file:|(^|\s)/\w", text)


def test_the_cpu_lock_leaves_out_what_only_cuda_needs(lock: str):
    cpu = pinned(cpu_lock(lock))
    gone = pinned(lock).keys() - cpu.keys()
    assert gone == {name for name in pinned(lock) if CUDA_ONLY.match(name)}
    assert {"triton", "nvidia-cublas", "cuda-toolkit"} <= gone


def test_the_cpu_lock_keeps_every_other_version_and_hash(lock: str):
    for name, (requirement, hashes) in pinned(cpu_lock(lock)).items():
        before, had = pinned(lock)[name]
        assert requirement == before
        assert hashes == (0 if name in FROM_PYTORCH else had)
