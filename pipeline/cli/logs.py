"""Where logs go: to standard error, as text for people or as JSON, a line each.

Libraries that log by themselves come out in the same form, at warning and above, and each of their
messages once in a while: a client of Kafka says many times a second that Kafka is away.
"""

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Literal

import structlog

Level = Literal["debug", "info", "warning", "error", "critical"]
Format = Literal["text", "json"]

SAY_AGAIN_S = 30.0
"""How long a library's message is not repeated."""
_KNOWN_AT_MOST = 1_000


class OnceInAWhile(logging.Filter):
    """Lets each message of each logger through once in `pause_s`, with how many were left out.

    Messages that differ in their arguments or in numbers only are the same.
    """

    def __init__(
        self, pause_s: float = SAY_AGAIN_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._pause_s = pause_s
        self._clock = clock
        self._said_at: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, key = self._clock(), (record.name, re.sub(r"\d+", "#", str(record.msg)))
        if now - self._said_at.get(key, -self._pause_s) < self._pause_s:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return False
        if len(self._said_at) >= _KNOWN_AT_MOST:
            self._said_at.clear()
        self._said_at[key] = now
        if left_out := self._left_out.pop(key, 0):
            record.msg = f"{record.getMessage()} (and {left_out:,} more like it were left out)"
            record.args = ()
        return True


def configure(level: Level, form: Format = "text", *, libraries: Level = "warning") -> None:
    """Sets up our logs from `level` on, and those of libraries from `libraries` on."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(form)
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    handler.addFilter(OnceInAWhile())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_number(libraries))


def _rendering(form: Format) -> list[structlog.typing.Processor]:
    # Plain traces: a trace with local variables would tell what is in the memories.
    if form == "json":
        return [_flat, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    colours = sys.stderr.isatty()
    plain = structlog.dev.plain_traceback
    return [_once, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]


def _flat(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """`beside` holds what the sentence says already, for programs."""
    beside = event.pop("beside", {})
    return {**event, **beside}


def _once(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """People have read the sentence."""
    event.pop("beside", None)
    return event


def _number(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
