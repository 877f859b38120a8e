"""`deploy/setup.sh` on machines where something is missing says what, and changes nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = ("sh", "dirname", "sed", "cksum", "cat", "rm", "uname", "grep")


class Machine:
    """A folder with the project's files for installing, and a PATH with little on it."""

    def __init__(self, root: Path, project: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            self.bin.joinpath(tool).symlink_to(str(shutil.which(tool)))
        self.project = root / "a project"
        for name in ("requirements.lock", "requirements-uv.txt", "pyproject.toml"):
            self.copy(project, name)
        self.copy(project, "deploy/setup.sh")
        self.copy(project, "deploy/cpu_lock.py")

    def copy(self, project: Path, name: str) -> None:
        target = self.project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / name, target)

    def has(self, name: str, script: str) -> None:
        """Puts a program on the PATH, or into the project."""
        file = self.bin / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def setup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.project / "deploy/setup.sh"), *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.root)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path, project: Path) -> Machine:
    return Machine(tmp_path, project)


def test_without_python_it_says_how_to_get_one(machine: Machine):
    done = machine.setup()
    assert done.returncode == 1
    assert "needs Python 3.11 to 3.14, and found none" in done.stderr
    assert "apt install python3" in done.stderr


def test_an_old_python_is_none(machine: Machine):
    machine.has("python3", "exit 1")
    assert "found none" in machine.setup().stderr


def test_without_venv_it_names_the_package(machine: Machine):
    machine.has("python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')
    done = machine.setup()
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert not (machine.project / ".venv").exists()


def test_another_python_that_has_venv_is_taken(machine: Machine):
    machine.has("python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')
    machine.has(
        "python3.12", '[ "$1" = -m ] && { echo "made $4 by $0"; exit 9; } || echo Python 3.12.0'
    )
    done = machine.setup()
    assert done.returncode == 9
    assert "by " + str(machine.bin / "python3.12") in done.stdout


def test_an_unknown_build_of_torch_is_refused(machine: Machine):
    done = machine.setup("rocm")
    assert done.returncode == 1
    assert "TORCH=rocm is unknown" in done.stderr


def installed(machine: Machine, torch: str) -> None:
    """As if all had been installed before."""
    venv = machine.project / ".venv"
    machine.has(str(venv / "bin/python"), "exit 0")
    machine.has(str(venv / "bin/uv"), f'echo "$*" >> "{machine.root}/uv.log"; echo "uv 0.13.9 (x)"')
    machine.has(str(venv / "bin/hybrid-memory"), "exit 0")
    (venv / "lib/python3.12/site-packages/torch").mkdir(parents=True)
    assert machine.setup(torch).returncode == 0


def log(machine: Machine) -> str:
    file = machine.root / "uv.log"
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    return text


def test_the_second_time_nothing_is_done(machine: Machine):
    installed(machine, "pypi")
    assert "pip sync" in log(machine)
    assert machine.setup().stdout == ""
    assert log(machine) == ""


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml", "requirements-uv.txt"])
def test_what_changed_is_installed_again(machine: Machine, name: str):
    installed(machine, "pypi")
    log(machine)
    with (machine.project / name).open("a") as file:
        file.write("# changed\n")
    assert machine.setup().returncode == 0
    assert "--require-hashes requirements.lock" in log(machine)


def test_the_choice_of_torch_is_kept(machine: Machine):
    installed(machine, "cpu")
    assert "--torch-backend cpu .venv/requirements-cpu.txt" in log(machine)
    (machine.project / "pyproject.toml").write_text("# changed\n")
    assert machine.setup().returncode == 0
    assert "--torch-backend cpu" in log(machine)
    assert machine.setup("pypi").returncode == 0
    assert "--torch-backend" not in log(machine)


def test_what_broke_off_is_not_taken_for_done(machine: Machine):
    installed(machine, "pypi")
    machine.has(
        str(machine.project / ".venv/bin/uv"),
        'case "$*" in *sync*) exit 2 ;; esac; echo uv 0.13.9 .',
    )
    (machine.project / "pyproject.toml").write_text("# changed\n")
    done = machine.setup()
    assert done.returncode == 1
    assert "Mend the cause and run it again" in done.stderr
    assert not (machine.project / ".venv/.installed").exists()


def test_it_speaks_of_the_cuda_build_before_it_downloads(machine: Machine):
    if os.uname().sysname != "Linux":
        pytest.skip("PyPI's PyTorch is the CUDA build on Linux only")
    installed(machine, "pypi")
    shutil.rmtree(machine.project / ".venv/lib")
    (machine.project / ".venv/.installed").unlink()
    machine.has(str(machine.project / ".venv/bin/uv"), 'echo "[uv $*]"; echo "uv 0.13.9 (x)"')
    told = machine.setup().stdout
    assert told.index("TORCH=cpu") < told.index("[uv pip sync")
    assert "TORCH=cpu" not in machine.setup("cpu").stdout
