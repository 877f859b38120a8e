"""Whether each part answers: one quick question to each, all at once.

A part that refuses is down. One that is slow may be busy: that it is down is not known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import Request, urlopen

from pipeline.cli.printing import on_one_line
from pipeline.cli.stack import masked
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.embedded.state import Stack
    from pipeline.settings import Settings

PATIENCE_S = 15.0
"""On two busy cores a healthy part takes seconds."""
ENDED_S = PATIENCE_S + 1
"""Of whoever was asked for nothing: no socket is left waiting."""
NOT_HERE = "none runs here: `hybrid-memory up` starts one, {variable} names another"


@dataclass(frozen=True)
class Part:
    """One part. `up` is None where this installation cannot ask it, or where it was `late`."""

    name: str
    address: str
    up: bool | None
    detail: str = ""
    late: bool = False
    """Asked, and no answer in time."""


async def check_parts(settings: "Settings", stack: "Stack | None") -> Sequence[Part]:
    """Every part, in the order of the stream."""
    kafka = settings.kafka_bootstrap_servers or (stack.kafka_bootstrap_servers if stack else None)
    dsn = settings.postgres_dsn.get_secret_value() if settings.postgres_dsn else None
    redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    dsn = dsn or (stack.postgres_dsn if stack else None)
    redis = redis or (stack.redis_url if stack else None)
    return await asyncio.gather(
        _check("Kafka", kafka, "KAFKA_BOOTSTRAP_SERVERS", lambda at: _kafka(settings, at)),
        _check("Postgres", dsn, "POSTGRES_DSN", _postgres),
        _check_index(settings, stack),
        _check("Valkey", redis, "REDIS_URL", _redis),
    )


async def _check(
    name: str, address: str | None, variable: str, ask: Callable[[str], Awaitable[None]]
) -> Part:
    if address is None:
        return Part(name, "", False, NOT_HERE.format(variable=variable))
    shown = masked(address)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await ask(address)
    except ModuleNotFoundError as error:
        return Part(name, shown, None, f"not asked: the package {error.name} is not installed")
    except TimeoutError:
        return Part(name, shown, None, late_by(PATIENCE_S), late=True)
    # Each driver raises its own; what it says is the answer.
    except Exception as error:
        return Part(name, shown, False, on_one_line(_reason(error).replace(address, shown), 120))
    return Part(name, shown, True)


def late_by(patience_s: float) -> str:
    """What is said of whoever did not answer in time."""
    return f"did not answer within {patience_s:g} s: busy?"


def _reason(error: Exception) -> str:
    from aiokafka.errors import KafkaConnectionError

    cause = error.__cause__ if isinstance(error, PipelineError) and error.__cause__ else error
    # What aiokafka says of it is a list of socket addresses.
    return (
        "no answer"
        if isinstance(cause, KafkaConnectionError)
        else str(cause) or type(cause).__name__
    )


async def _kafka(settings: "Settings", address: str) -> None:
    from pipeline.kafka.cluster import cluster_id

    await cluster_id(settings.kafka(address))


async def _postgres(dsn: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(dsn.replace("+asyncpg", ""), timeout=ENDED_S)
    try:
        await connection.fetchval("select 1")
    finally:
        await connection.close(timeout=1)


async def _redis(url: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(url, socket_timeout=ENDED_S) as client:
        await client.ping()


async def _check_index(settings: "Settings", stack: "Stack | None") -> Part:
    if settings.qdrant_url:
        key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
        return await _check(
            "Index",
            settings.qdrant_url,
            "QDRANT_URL",
            lambda url: asyncio.to_thread(_qdrant, url, key),
        )
    if stack is None:
        return Part("Index", "", False, NOT_HERE.format(variable="QDRANT_URL"))
    owners = [state.pid for name, state in stack.parts.items() if "vector_writer" in name]
    address = f"Qdrant Edge in {stack.qdrant_path}"
    if not owners or owners[0] is None:
        return Part("Index", address, False, "its process does not run")
    return Part("Index", address, True, f"in process {owners[0]}")


def _qdrant(url: str, api_key: str | None) -> None:
    headers = {"api-key": api_key} if api_key else {}
    request = Request(f"{url.rstrip('/')}/readyz", headers=headers)  # noqa: S310 - the user's own URL
    try:
        urlopen(request, timeout=ENDED_S).close()  # noqa: S310
    except URLError as error:
        raise OSError(error.reason) from error
