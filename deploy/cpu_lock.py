"""requirements.lock -> the same lock for the CPU build of PyTorch, on standard output.

PyTorch's CPU wheels come from PyTorch's own index, so the hashes of PyPI's do not fit them: those
packages keep their versions and lose their hashes. What only the CUDA build needs is left out.
`uv pip sync --torch-backend cpu` installs the result.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

FROM_PYTORCH = frozenset({"torch", "torchvision"})
"""The packages that `uv --torch-backend` takes from PyTorch's index."""
CUDA_ONLY = re.compile(r"(nvidia|cuda)-|triton$")


def cpu_lock(lock: str) -> str:
    """The lock's text for the CPU build."""
    return "".join(filter(None, map(_for_cpu, _requirements(lock.splitlines(keepends=True)))))


def _requirements(lines: Iterable[str]) -> Iterable[str]:
    """One string a requirement: its line, and the hashes and remarks below it."""
    block = ""
    for line in lines:
        if not line.startswith((" ", "#")) and block:
            yield block
            block = ""
        block += line
    yield block


def _for_cpu(requirement: str) -> str | None:
    name = requirement.partition("==")[0]
    if CUDA_ONLY.match(name):
        return None
    if name in FROM_PYTORCH:
        return requirement.partition("\n")[0].rstrip(" \\") + "\n"
    return requirement


if __name__ == "__main__":
    sys.stdout.write(cpu_lock(Path(sys.argv[1]).read_text("utf-8")))
