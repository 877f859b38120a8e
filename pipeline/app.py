"""The composition root: settings in, running stages out. It alone knows every class.

A stage names the ports it needs as the arguments of its `stage` function; they are opened when a stage
first asks for them, shared by the stages of the process, and closed after the last batch. Heavy packages
are imported by the process that uses them.
"""

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import platformdirs
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

import consumers
from pipeline.embedded.state import Stack
from pipeline.errors import Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.liveness import Liveness
from pipeline.settings import Settings
from pipeline.stage import Desk, Stage

log = structlog.get_logger(__name__)

LONGEST_PAUSE_S = 10.0

Prepared = TypeVar("Prepared")


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


def stage_modules() -> Mapping[str, ModuleType]:
    """Every stage by name: the modules of `consumers`, in the order of the stream."""
    names = [module.name for module in pkgutil.iter_modules(consumers.__path__)]
    modules = {name: importlib.import_module(f"consumers.{name}") for name in names}
    return {name: modules[name] for name in sorted(modules, key=_place)}


def _place(name: str) -> tuple[int, str]:
    known = ["classifier", "embedder", "record_writer", "vector_writer", "query"]
    return (known.index(name) if name in known else len(known), name)


async def build(
    names: Sequence[str],
    settings: Settings,
    where: Addresses,
    stack: AsyncExitStack,
    say: Callable[[str], None],
) -> list[Stage | Desk]:
    """The stages of one process, with their ports open; `stack` closes them. Raises Refused."""
    modules = stage_modules()
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise Refused(f"No such stage: {', '.join(unknown)}. There are {', '.join(modules)}.")
    openers = _openers(settings, where, say)
    ports: dict[str, Any] = {}
    work: list[Stage | Desk] = []
    for name in names:
        wanted = inspect.signature(modules[name].stage).parameters
        for port in wanted:
            if port not in ports:
                ports[port] = await openers[port]()
                stack.push_async_callback(_close, ports[port])
        work.append(modules[name].stage(**{port: ports[port] for port in wanted}))
    return work


async def _close(port: Any) -> None:
    close = getattr(port, "close", None)
    if close is not None:
        await close()


def _openers(
    settings: Settings, where: Addresses, say: Callable[[str], None]
) -> Mapping[str, Callable[[], Awaitable[Any]]]:
    async def embedder() -> Any:
        from pipeline.models.embedder import open_embedder

        return await open_embedder(
            settings.embedding_model,
            backend=settings.embedding_backend,
            threads=settings.embedding_threads,
            cache_dir=Path(platformdirs.user_cache_dir("hybrid-memory")) / "models",
            on_progress=say,
        )

    async def classifier() -> Any:
        from pipeline.models.classifier import HeuristicClassifier

        return HeuristicClassifier()

    async def records() -> Any:
        from pipeline.stores.postgres import open_records

        return await open_records(_given(where.postgres_dsn, "Postgres", "POSTGRES_DSN"))

    async def cache() -> Any:
        from pipeline.stores.redis import RedisCache

        return RedisCache(_given(where.redis_url, "Redis or Valkey", "REDIS_URL"))

    async def vectors() -> Any:
        return await _open_vectors(settings, where)

    return {
        "embedder": embedder,
        "classifier": classifier,
        "records": lambda: _patiently(records),
        "vectors": lambda: _patiently(vectors),
        "cache": cache,
    }


async def _open_vectors(settings: Settings, where: Addresses) -> Any:
    raise NotImplementedError


def _given(address: str | None, what: str, variable: str) -> str:
    if address is None:
        raise Refused(
            f"No {what}: start the stack on this machine with `hybrid-memory up`, or set {variable}."
        )
    return address


async def _patiently(opener: Callable[[], Awaitable[Any]]) -> Any:
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


async def run(
    names: Sequence[str],
    settings: Settings,
    where: Addresses,
    *,
    until: asyncio.Event,
    liveness: Liveness | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Runs stages in this process until `until` is set. Raises what `serve` raises, and Refused."""
    from pipeline.kafka.process import serve

    async with AsyncExitStack() as stack:
        work = await _unless(until, _prepared(names, settings, where, stack))
        if work is not None:
            await serve(
                where.kafka,
                settings.topic_prefix,
                work,
                until=until,
                liveness=liveness,
                on_ready=on_ready,
            )


async def _prepared(
    names: Sequence[str], settings: Settings, where: Addresses, stack: AsyncExitStack
) -> list[Stage | Desk]:
    from pipeline.kafka.topics import ensure_topics

    await _patiently(
        lambda: ensure_topics(
            where.kafka,
            settings.topic_prefix,
            partitions=settings.kafka_partitions,
            replication_factor=settings.kafka_replication_factor,
        )
    )
    return await build(names, settings, where, stack, lambda said: log.info(said))


async def _unless(
    until: asyncio.Event, preparing: Coroutine[Any, Any, Prepared]
) -> Prepared | None:
    """The result, or None when the process is asked to stop before there is one."""
    task = asyncio.create_task(preparing)
    stopped = asyncio.create_task(until.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return None
