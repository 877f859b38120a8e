"""Ctrl-C ends a command in order, and a second one at once: none leaves it hanging."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.reaching import running

SLOW_TO_CLOSE = """
import asyncio, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.cli.reaching import running

async def command():
    try:
        print("open", flush=True)
        await asyncio.Event().wait()
    finally:
        print("closing", flush=True)
        await asyncio.Event().wait()

running(command())
"""


@pytest.fixture
def heard() -> Iterator[None]:
    """Who runs tests in the background of a shell has them ignore Ctrl-C, and what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_two_at_once_are_one_and_close_what_was_opened():
    done: list[str] = []

    async def command() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append("closed")

    with pytest.raises(KeyboardInterrupt):
        running(command())
    assert done == ["closed"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_wait_for_what_does_not_close(project: Path):
    program = [sys.executable, "-c", SLOW_TO_CLOSE]
    with subprocess.Popen(program, cwd=project, stdout=-1, stderr=-1, text=True) as command:
        assert command.stdout and command.stderr  # noqa: PT018
        assert command.stdout.readline() == "open\n"
        command.send_signal(signal.SIGINT)
        assert command.stdout.readline() == "closing\n"
        while command.poll() is None:
            command.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.wait(0.2)
        assert (command.returncode, command.stderr.read()) == (130, "")
