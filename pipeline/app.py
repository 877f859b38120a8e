"""The composition root: settings in, running stages out. It alone knows every class.

A stage names the ports it needs as the arguments of its `stage` function; they are opened when a stage
first asks for them, shared by the stages of the process, and closed after the last batch. Heavy packages
are imported by the process that uses them.
"""

import asyncio
import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import platformdirs
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

import consumers
from pipeline.domain.tiers import Tiers
from pipeline.domain.weights import Weights
from pipeline.embedded.plan import Process
from pipeline.embedded.state import Stack
from pipeline.ending import ended, unless
from pipeline.errors import Halted, Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.liveness import Liveness
from pipeline.settings import Settings
from pipeline.stage import Desk, Stage

if TYPE_CHECKING:
    # They speak in arrays; the command line starts without numpy.
    from pipeline.ports import (
        Cache,
        Classifier,
        Embedder,
        Fingerprints,
        MemoryRecords,
        MemoryVectors,
        Reranker,
    )
    from pipeline.stores.caches import Caches
    from pipeline.stores.hot import Keep
    from pipeline.verifying.filling import Embed, Filling, Understand
    from pipeline.verifying.replacing import Fresh
    from producers.mem0_poller import Opening

log = structlog.get_logger(__name__)

LONGEST_PAUSE_S = 10.0
DESK_CACHE_PATIENCE_S = 0.1
SOURCES = ("mem0",)
"""What runs beside the stages, by name: reads elsewhere and publishes here."""


def unheard(_: str) -> None:
    """Of steps that nobody watches."""


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
    known = [
        "classifier",
        "embedder",
        "record_writer",
        "vector_writer",
        "contextualizer",
        "query",
        "operator_desk",
        "lifecycle",
        "tier_writer",
    ]
    return (known.index(name) if name in known else len(known), name)


def stage_processes(settings: Settings, stack: Stack) -> Sequence[Process]:
    """The processes that `up` keeps: one a stage, but one for all that own the Edge directory."""
    modules = stage_modules()
    owners = (
        [] if settings.qdrant_url else [n for n in modules if "vectors" in _ports_of(modules[n])]
    )
    groups = [[name] for name in modules if name not in owners]
    groups += [owners] if owners else []
    run = [sys.executable, "-m", "pipeline.cli", "run", "--data", str(stack.data)]
    return [Process("+".join(group), [*run, *group]) for group in groups]


def source_processes(settings: Settings, stack: Stack) -> Sequence[Process]:
    """The processes that `up` keeps beside the stages: the poller, where there is a Mem0 to watch."""
    if not settings.watches_mem0:
        return []
    argv = [sys.executable, "-m", "pipeline.cli", "run", "--data", str(stack.data), "mem0"]
    return [Process("mem0", argv)]


@asynccontextmanager
async def open_ports(
    settings: Settings,
    where: Addresses,
    wanted: Iterable[str],
    say: Callable[[str], None] = log.info,
    on_step: Callable[[str], None] = unheard,
) -> AsyncGenerator[Mapping[str, Any]]:
    """The ports of these names, open for the time of the block. Raises Refused, Unavailable.

    `on_step` hears the name of each before it is opened.
    """
    names = sorted(set(wanted))
    ports: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        # A model takes half a minute to load: whoever may not have the index hears it before.
        lock = _index_lock(where) if "vectors" in names else None
        if lock is not None:
            stack.callback(lock.close)
        openers = _openers(settings, where, say, lock)
        # In this order the embedder comes before the index, which asks it for its dimensions.
        for name in names:
            on_step(name)
            ports[name] = await openers[name](ports)
            stack.push_async_callback(_close, ports[name])
        yield ports


@asynccontextmanager
async def open_for_comparing(
    settings: Settings, where: Addresses
) -> AsyncGenerator[tuple["MemoryRecords", "Fingerprints"]]:
    """The record, and what the index holds: asked of the operator desk, or opened where none runs.

    Raises Refused, Unavailable.
    """
    from pipeline.kafka.asking import Asking
    from pipeline.kafka.lag import group_members
    from pipeline.kafka.records import group_of
    from pipeline.verifying.asking import IndexOverKafka

    desk = group_of(settings.topic_prefix, "operator_desk")
    answers = (await group_members(where.kafka, [desk])).get(desk)
    wanted = ["records"] if answers else ["records", "vectors"]
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(open_ports(settings, where, wanted))
        if not answers:
            yield ports["records"], ports["vectors"]
            return
        asking = Asking(where.kafka, settings.topic_prefix)
        stack.push_async_callback(asking.close)
        yield ports["records"], IndexOverKafka(asking)


@asynccontextmanager
async def open_for_rebuilding(
    settings: Settings, where: Addresses, say: Callable[[str], None] = log.info
) -> AsyncGenerator[tuple["Fresh", "Filling", "MemoryRecords"]]:
    """A fresh index beside the one in use, what fills it, and the record. Raises Refused, Unavailable.

    The fresh index is removed at the end unless it was put in the place of the old one.
    """
    from consumers import classifier, embedder
    from pipeline.kafka.lag import group_members
    from pipeline.kafka.records import group_of
    from pipeline.stores.memory import CacheInMemory
    from pipeline.verifying.filling import Filling
    from schemas.topics import ENRICHED

    prefix = settings.topic_prefix
    users = ("vector_writer", "query", "operator_desk")
    running = await group_members(where.kafka, [group_of(prefix, name) for name in users])
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(
            open_ports(settings, where, ["classifier", "embedder", "records"], say)
        )
        model: Embedder = ports["embedder"]
        fresh = await _fresh(stack, settings, where, ports, sum(running.values()))
        yield (
            fresh,
            Filling(
                fresh=fresh.index,
                model=model.model,
                connection=where.kafka,
                topic=ENRICHED.under(prefix),
                understand=cast("Understand", classifier.stage(ports["classifier"]).react),
                embed=cast("Embed", embedder.stage(model, CacheInMemory()).react),
            ),
            ports["records"],
        )


async def _fresh(
    stack: AsyncExitStack,
    settings: Settings,
    where: Addresses,
    ports: Mapping[str, Any],
    members: int,
) -> "Fresh":
    """Whose index it is decides how the fresh one takes its place."""
    from pipeline.verifying.replacing import OfAnOwner, OfNobody, OnAServer

    model: Embedder = ports["embedder"]
    shape: dict[str, Any] = {"model": model.model, "dimensions": model.dimensions}
    if where.qdrant_url:
        from pipeline.stores.qdrant import check_model, fresh_collection

        server = _server(settings, where.qdrant_url)
        if members:
            await check_model(**server, **shape)
        made = await stack.enter_async_context(fresh_collection(**server, **shape))
        prefix = settings.topic_prefix
        return OnAServer(made.index, made.switch, where.kafka, prefix, members)
    if where.qdrant_path is None:
        raise Refused("No Qdrant: start the stack with `hybrid-memory up`, or set QDRANT_URL.")
    from pipeline.kafka.asking import Asking
    from pipeline.stores.edge_folders import check_folder, fresh_folder, take_over
    from pipeline.verifying.repairing import mending

    path, kafka, prefix = where.qdrant_path, where.kafka, settings.topic_prefix
    if members:
        await asyncio.to_thread(check_folder, path, **shape)
    name, index = await stack.enter_async_context(fresh_folder(path, **shape))
    if not members:
        return OfNobody(index, name, path, take_over, kafka, prefix)
    asking = Asking(kafka, prefix)
    stack.push_async_callback(asking.close)
    mend = await stack.enter_async_context(mending(kafka, prefix, ports["records"]))
    return OfAnOwner(index, name, asking, mend, kafka, prefix)


def _server(settings: Settings, url: str) -> Mapping[str, Any]:
    key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
    return {
        "url": url,
        "collection": settings.qdrant_collection,
        "api_key": key,
        "grpc_port": settings.qdrant_grpc_port,
        "replication_factor": settings.qdrant_replication_factor,
    }


def _wanted(names: Sequence[str]) -> list[str]:
    """The ports that these stages name. Raises Refused for a stage that is not there."""
    modules = stage_modules()
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise Refused(f"No such stage: {', '.join(unknown)}. There are {', '.join(modules)}.")
    return [port for name in names for port in _ports_of(modules[name])]


def _ports_of(module: ModuleType) -> list[str]:
    return list(inspect.signature(module.stage).parameters)


def _built(names: Sequence[str], ports: Mapping[str, Any]) -> list[Stage | Desk]:
    modules = stage_modules()
    return [
        modules[name].stage(**{port: ports[port] for port in _ports_of(modules[name])})
        for name in names
    ]


def _index_lock(where: Addresses) -> TextIOWrapper | None:
    """The lock of the index that one process owns; None where a server has it. Raises Refused."""
    if where.qdrant_url or where.qdrant_path is None:
        return None
    from pipeline.stores.qdrant_edge import owned

    return owned(where.qdrant_path)


async def _close(port: Any) -> None:
    close = getattr(port, "close", None)
    if close is not None:
        await close()


def look_for_models(settings: Settings) -> None:
    """Raises Halted where no model has the name that a setting gives, Unavailable where nobody can tell."""
    from pipeline.models.weights import look_for

    models = (
        ("EMBEDDING_MODEL", settings.embedding_model),
        ("RERANKER_MODEL", settings.reranker_model),
    )
    for setting, model in models:
        try:
            if model:
                look_for(model)
        except Refused as error:
            raise Halted(f"{setting}: {error}.") from error
        except Unavailable as error:
            raise Unavailable(f"{setting}: {error}.") from error


def _openers(
    settings: Settings,
    where: Addresses,
    say: Callable[[str], None],
    lock: TextIOWrapper | None = None,
) -> Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Any]]]:
    """How to open each port; an opener is given those that are open already."""

    async def embedder(_: Mapping[str, Any]) -> "Embedder":
        from pipeline.models.embedder import open_embedder

        return await open_embedder(
            settings.embedding_model,
            backend=settings.embedding_backend,
            threads=settings.embedding_threads,
            cache_dir=Path(platformdirs.user_cache_dir("hybrid-memory")) / "models",
            on_progress=say,
        )

    async def classifier(_: Mapping[str, Any]) -> "Classifier":
        from pipeline.models.classifier import HeuristicClassifier

        return HeuristicClassifier()

    async def records(_: Mapping[str, Any]) -> "MemoryRecords":
        from pipeline.stores.postgres import open_records

        dsn = _given(where.postgres_dsn, "Postgres", "POSTGRES_DSN")
        return await _patiently(lambda: open_records(dsn))

    async def cache(_: Mapping[str, Any]) -> "Cache":
        from pipeline.stores.redis import RedisCache

        return RedisCache(_given(where.redis_url, "Redis or Valkey", "REDIS_URL"))

    async def vectors(ports: Mapping[str, Any]) -> "MemoryVectors":
        model: Embedder = ports.get("embedder") or await embedder(ports)
        shape = (model.model, model.dimensions)
        if "embedder" not in ports:
            await model.close()
        caches = ports.get("caches")
        return await _patiently(lambda: _open_index(settings, where, *shape, caches, lock))

    async def reranker(_: Mapping[str, Any]) -> "Reranker | None":
        if not settings.reranker_model:
            return None
        from pipeline.models.reranker import open_reranker

        say(f"loading the reranker {settings.reranker_model}")
        return await open_reranker(settings.reranker_model, threads=settings.embedding_threads)

    return {
        **_values(settings),
        "reranker": reranker,
        "embedder": embedder,
        "classifier": classifier,
        "records": records,
        "vectors": vectors,
        "cache": cache,
        "caches": lambda _: _opened_caches(settings, where),
    }


def _values(settings: Settings) -> Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Any]]]:
    """Ports that are no more than a setting."""

    async def weights(_: Mapping[str, Any]) -> Weights:
        return settings.search_weights

    async def rerank_depth(_: Mapping[str, Any]) -> int:
        return settings.rerank_depth

    async def tiers(_: Mapping[str, Any]) -> Tiers:
        return settings.tiers

    return {"weights": weights, "rerank_depth": rerank_depth, "tiers": tiers}


async def _open_index(
    settings: Settings,
    where: Addresses,
    model: str,
    dimensions: int,
    caches: "Caches | None",
    lock: TextIOWrapper | None,
) -> "MemoryVectors":
    if where.qdrant_url:
        from pipeline.stores.qdrant import open_qdrant

        server = _server(settings, where.qdrant_url)
        return await open_qdrant(**server, model=model, dimensions=dimensions)
    if where.qdrant_path is None:
        raise Refused("No Qdrant: start the stack with `hybrid-memory up`, or set QDRANT_URL.")
    from pipeline.stores.edge_folders import open_owned

    return await open_owned(
        where.qdrant_path,
        model=model,
        dimensions=dimensions,
        keep=_keep(settings, caches),
        lock=lock,
    )


def _keep(settings: Settings, caches: "Caches | None") -> "Keep | None":
    """Where questions are answered: the vectors of users who ask often."""
    tally = caches.memories if caches else None
    if tally is None:
        return None
    from pipeline.stores.hot import HotVectors

    return lambda points: HotVectors(points, settings.cache_hot_users_bytes, tally)


async def _opened_caches(settings: Settings, where: Addresses) -> "Caches":
    from pipeline.stores.caches import Caches, HotCache
    from pipeline.stores.redis import RedisCache

    size, url = settings.cache_memory_bytes, where.redis_url
    return Caches(
        HotCache(size) if size else None,
        # An asker waits: sooner without a cache than later with it.
        RedisCache(url, timeout_s=DESK_CACHE_PATIENCE_S) if url else None,
        vectors=settings.cache_question_vectors,
        answers=settings.cache_answers,
        # A server has its own ways to be fast, and others write to it.
        memories=settings.cache_hot_users_bytes > 0 and where.qdrant_url is None,
        shares_answers=where.qdrant_url is not None,
        under=_searched_under(settings),
    )


def _searched_under(settings: Settings) -> str:
    """All settings that an answer may depend on, and our version."""
    told = {
        name: value
        for name, value in settings.model_dump(mode="json").items()
        if name.startswith(("search_", "embedding_", "rerank"))
    }
    return json.dumps([version("hybrid-memory"), told], sort_keys=True)


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
    on_step: Callable[[str], None] = unheard,
    hinted: asyncio.Event | None = None,
) -> None:
    """Runs stages in this process until `until` is set. Raises what `serve` raises, and Refused.

    `on_step` hears what comes next until they are ready: "topics", the names of ports, "joining".
    `hinted` is set by whoever was told that something may have changed in a source.
    """
    from pipeline.kafka.process import serve

    sources = [name for name in names if name in SOURCES]
    names = [name for name in names if name not in SOURCES]
    wanted = _wanted(names)
    liveness = liveness or Liveness()
    async with AsyncExitStack() as stack:
        on_step("topics")
        if await unless(until, _topics(settings, where)) is None:
            return
        opening = open_ports(settings, where, wanted, on_step=on_step)
        ports = await unless(until, stack.enter_async_context(opening))
        if ports is None:
            return
        on_step("joining")
        running = [_poll_mem0(settings, where, until, liveness, on_ready, hinted) for _ in sources]
        if names:
            running.append(
                serve(
                    where.kafka,
                    settings.topic_prefix,
                    _built(names, ports),
                    until=until,
                    liveness=liveness,
                    on_ready=on_ready,
                    halting_share=settings.halting_share,
                )
            )
        await _together(running, until)


async def _together(running: Sequence[Coroutine[Any, Any, None]], until: asyncio.Event) -> None:
    """Runs all of them; the first that ends asks the others to stop, and its error is raised."""
    tasks = [asyncio.create_task(one) for one in running]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        until.set()
        await asyncio.wait(tasks)
    finally:
        await ended(*tasks)
    for task in tasks:
        task.result()


async def _poll_mem0(
    settings: Settings,
    where: Addresses,
    until: asyncio.Event,
    liveness: Liveness,
    on_ready: Callable[[], None],
    hinted: asyncio.Event | None,
) -> None:
    from pipeline.sources.mem0 import Rules
    from producers.mem0_poller import poll

    await poll(
        mem0_opening(settings),
        where.kafka,
        settings.topic_prefix,
        interval_s=settings.sync_interval_seconds,
        rules=Rules(
            # What is here has no replicas.
            lag_s=0.0 if settings.mem0_local else settings.mem0_replica_lag_seconds,
            sweep_interval_s=settings.sync_sweep_interval_seconds,
            permission=settings.mem0_allow_deletes,
        ),
        until=until,
        liveness=liveness,
        project_id=None if settings.mem0_local else settings.mem0_project_id,
        on_ready=on_ready,
        hinted=hinted,
    )


def mem0_opening(settings: Settings) -> "Opening":
    """How to get to Mem0. Raises Refused."""
    local = settings.mem0_local
    if local and settings.mem0_api_key:
        raise Refused("MEM0_API_KEY and MEM0_LOCAL name two Mem0s: set one of them.")
    if local:
        from pipeline.sources.mem0_oss import LocalMem0

        return lambda: nullcontext(LocalMem0(local.expanduser(), settings.mem0_local_collection))
    if not settings.mem0_api_key:
        raise Refused(
            "No Mem0: set MEM0_API_KEY, or start a stand-in with `hybrid-memory mem0-sim` and set "
            "MEM0_API_KEY=any MEM0_HOST=http://localhost:8888, or set MEM0_LOCAL to the folder of a Mem0 "
            "without the cloud."
        )
    from pipeline.sources.mem0_api import Turns, opened

    key = settings.mem0_api_key.get_secret_value()
    home, turns = Path(platformdirs.user_cache_dir("hybrid-memory")) / "mem0", Turns()
    return lambda: opened(key, settings.mem0_host, home, turns)


async def _topics(settings: Settings, where: Addresses) -> Mapping[str, int]:
    from pipeline.kafka.topics import ensure_topics

    return await _patiently(
        lambda: ensure_topics(
            where.kafka,
            settings.topic_prefix,
            partitions=settings.kafka_partitions,
            replication_factor=settings.kafka_replication_factor,
        )
    )
