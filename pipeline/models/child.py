"""Runs the preparation of a model in a process of its own.

It imports torch and everything around it, a gigabyte that the embedder does not need afterwards, and it
computes for half a minute, for which no thread of the event loop's process should have to wait.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

from pipeline.errors import Refused, Unavailable

_REMEDIES: Final = {"Refused": Refused, "Unavailable": Unavailable}
_ROOT: Final = Path(__file__).parents[2]


async def run_preparation(
    model: str,
    backend: str | None,
    cache_dir: Path,
    threads: int,
    *,
    on_progress: Callable[[str], None],
) -> None:
    """Returns when the cache holds what `backend` needs of `model`; of None its description.

    Raises Refused or Unavailable as the preparation did. The process ends with this coroutine, and with
    the process that called it.
    """
    task = {"model": model, "backend": backend, "cache_dir": str(cache_dir), "threads": threads}
    with TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pipeline.models.preparation", json.dumps(task)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": _python_path()},
        )
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                _hear(json.loads(line), on_progress)
            if await process.wait() != 0:
                raise RuntimeError(f"preparing {model} failed: {_last_words(errors)}")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _hear(told: dict[str, str], on_progress: Callable[[str], None]) -> None:
    if remedy := _REMEDIES.get(told["what"]):
        raise remedy(told["message"])
    on_progress(told["message"])


def _python_path() -> str:
    """Where the process finds this package, installed or not."""
    return os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
    return errors.read().decode(errors="replace")
