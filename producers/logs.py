"""What the client logs -> the application's own logging.

A library must not print. structlog does, until somebody configures it: who has not, hears the client through
the standard library's `logging`, as he has set that up.
"""

import structlog


def log_as_the_application_does() -> None:
    """Has an application's `logging` hear what it has not told structlog what to do with."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.dev.ConsoleRenderer(
                colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
