"""What the client logs -> the application's own logging.

A library must not print. structlog does, until somebody configures it: who has not, hears the client through
the standard library's `logging`, as he has set that up. That prints errors where nobody has set it up:
aiokafka's would stand beside the exceptions that tell the same.
"""

import logging

import structlog

_HEARD_BY_NOBODY = logging.NullHandler()


def log_as_the_application_does() -> None:
    """Has an application's `logging` hear what it has not told structlog what to do with."""
    logging.getLogger("aiokafka").addHandler(_HEARD_BY_NOBODY)
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
