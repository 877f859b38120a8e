"""Ctrl-C, once: what a command does is cancelled, and closes what it opened. Once more: it leaves at once.

asyncio makes the second one a KeyboardInterrupt wherever its loop just is. What stood there is lost,
such as whom to wake next, and then the loop waits without end for tasks that nobody wakes.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

ONE_KEYPRESS_S = 0.5
"""Two Ctrl-C closer than this are one: some launchers pass on what the terminal also sends."""
INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h\n"

Heard = Callable[[int, FrameType | None], object]


@contextmanager
def interruptible() -> Generator[Callable[[], None]]:
    """Around a loop's whole life. What is given is called in its first task: who hears the first is there by then."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield _hear
    finally:
        signal.signal(signal.SIGINT, before)


def _hear() -> None:
    first = signal.getsignal(signal.SIGINT)
    if callable(first):  # unless it is ignored, as in a script's background
        signal.signal(signal.SIGINT, _once(first))


def _once(first: Heard) -> Heard:
    asked_at: float | None = None

    def asked(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = time.monotonic()
            first(number, frame)
        elif time.monotonic() - asked_at > ONE_KEYPRESS_S:
            _leave()

    return asked


def _leave() -> None:
    terminal = next(filter(os.isatty, (2, 1)), None)
    if terminal is not None:
        # A live display hides it, and has no time to show it again.
        os.write(terminal, _SHOW_CURSOR)
    os._exit(INTERRUPTED)
