"""What is logged, whatever those who ran before have made of the logs of this process."""

from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.testing import capture_logs


@contextmanager
def as_nobody_set_it_up() -> Generator[None]:
    """structlog as an application finds it, for the time of a block."""
    was_set_up, before = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    try:
        yield
    finally:
        structlog.reset_defaults()
        if was_set_up:
            structlog.configure(**before)


@contextmanager
def heard() -> Generator[list[MutableMapping[str, Any]]]:
    """Every line that is logged in the block, of every level."""
    with as_nobody_set_it_up(), capture_logs() as logged:
        yield logged
