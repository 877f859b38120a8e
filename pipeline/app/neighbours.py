"""Where the neighbours are, and how long a process waits for one that is not up yet."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipeline.embedded.state import Stack
from pipeline.errors import Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.settings import Settings

LONGEST_PAUSE_S = 10.0
"""Between two attempts to reach a neighbour."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Addresses:
    """Where the neighbours are. Exactly one of `qdrant_url` and `qdrant_path` is set."""

    kafka: KafkaConnection
    postgres_dsn: str | None
    redis_url: str | None
    qdrant_url: str | None
    qdrant_path: Path | None


def addresses(settings: Settings, stack: Stack | None) -> Addresses:
    """What the settings name, and for the rest the stack that runs here. Raises Refused."""
    kafka = settings.kafka_bootstrap_servers or (stack.kafka_bootstrap_servers if stack else None)
    if kafka is None:
        raise Refused(
            "No Kafka: start the stack on this machine with `hybrid-memory up`, or set "
            "KAFKA_BOOTSTRAP_SERVERS to the address of yours."
        )
    given_dsn = settings.postgres_dsn.get_secret_value() if settings.postgres_dsn else None
    given_redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    return Addresses(
        kafka=settings.kafka(kafka),
        postgres_dsn=given_dsn or (stack.postgres_dsn if stack else None),
        redis_url=given_redis or (stack.redis_url if stack else None),
        qdrant_url=settings.qdrant_url,
        qdrant_path=None if settings.qdrant_url or not stack else stack.qdrant_path,
    )


def given(address: str | None, what: str, variable: str) -> str:
    """The address. Raises Refused where there is none, with what to do."""
    if address is None:
        raise Refused(
            f"No {what}: start the stack on this machine with `hybrid-memory up`, or set {variable}."
        )
    return address


async def patiently(opener: Callable[[], Awaitable[Any]]) -> Any:
    """Opens a port, however long its server takes to come up."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
        before_sleep=_say_it_waits,
        reraise=True,
    ):
        with attempt:
            return await opener()
    raise AssertionError("tenacity returns or raises")


def _say_it_waits(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("waiting for a neighbour", reason=str(error))
