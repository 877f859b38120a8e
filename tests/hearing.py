"""What is logged, whatever those who ran before have made of the logs of this process."""

from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.testing import capture_logs


@contextmanager
def heard() -> Generator[list[MutableMapping[str, Any]]]:
    """Every line that is logged in the block, of every level."""
    was_set_up, before = structlog.is_configured(), structlog.get_config()
    structlog.reset_defaults()
    try:
        with capture_logs() as logged:
            yield logged
    finally:
        structlog.reset_defaults()
        if was_set_up:
            structlog.configure(**before)
