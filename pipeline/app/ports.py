"""The ports that stages name, opened when one first asks, shared in the process, closed after the last batch."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs
import structlog

from pipeline.app.caches import opened_caches
from pipeline.app.index import index_lock, open_index, shape_of
from pipeline.app.neighbours import Addresses, given, patiently
from pipeline.errors import Halted, Refused, Unavailable
from pipeline.settings import Settings

if TYPE_CHECKING:
    # They speak in arrays; the command line starts without numpy.
    from pipeline.ports import Cache, Classifier, Embedder, MemoryRecords, MemoryVectors
    from pipeline.searching.search import Rereading
    from pipeline.stores.points import IndexShape


T = TypeVar("T")

Opener = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""Opens a port, given those that are open already."""

log = structlog.get_logger(__name__)


def unheard(_: str) -> None:
    """Of steps that nobody watches."""


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
        lock = index_lock(where) if "vectors" in names else None
        if lock is not None:
            stack.callback(lock.close)
        opening = openers(settings, where, say, lock)
        # In this order the embedder comes before the index, which asks it for its dimensions.
        for name in names:
            on_step(name)
            ports[name] = await opening[name](ports)
            stack.push_async_callback(_close, ports[name])
        yield ports


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


def openers(
    settings: Settings,
    where: Addresses,
    say: Callable[[str], None],
    lock: TextIOWrapper | None = None,
) -> Mapping[str, Opener]:
    """How to open each port."""
    return {
        "cache": lambda _: _cache(where),
        "caches": lambda _: _ready(opened_caches(settings, where)),
        "classifier": lambda _: _classifier(),
        "embedder": lambda _: _embedder(settings, say),
        "records": lambda _: _records(where),
        "rereading": lambda _: _rereading(settings, say),
        "tiers": lambda _: _ready(settings.tiers),
        "vectors": lambda ports: _vectors(settings, where, say, lock, ports),
        "weights": lambda _: _ready(settings.search_weights),
    }


async def _ready(port: T) -> T:
    """A port that is there without a wait."""
    return port


async def _embedder(settings: Settings, say: Callable[[str], None]) -> "Embedder":
    from pipeline.models.embedder import open_embedder

    return await open_embedder(
        settings.embedding_model,
        backend=settings.embedding_backend,
        threads=settings.embedding_threads,
        cache_dir=_models(),
        on_progress=say,
    )


def _models() -> Path:
    """Where what was made of models is kept."""
    return Path(platformdirs.user_cache_dir("hybrid-memory")) / "models"


async def _classifier() -> "Classifier":
    from pipeline.models.classifier import HeuristicClassifier

    return HeuristicClassifier()


async def _rereading(settings: Settings, say: Callable[[str], None]) -> "Rereading | None":
    if not settings.reranker_model:
        return None
    from pipeline.models.reranker import open_reranker
    from pipeline.searching.search import Rereading

    say(f"loading the reranker {settings.reranker_model}")
    model = await open_reranker(settings.reranker_model, threads=settings.embedding_threads)
    return Rereading(model, settings.rerank_depth, settings.rerank_weight)


async def _records(where: Addresses) -> "MemoryRecords":
    from pipeline.stores.postgres import open_records

    dsn = given(where.postgres_dsn, "Postgres", "POSTGRES_DSN")
    return await patiently(lambda: open_records(dsn))


async def _cache(where: Addresses) -> "Cache":
    from pipeline.stores.redis import RedisCache

    return RedisCache(given(where.redis_url, "Redis or Valkey", "REDIS_URL"))


async def _vectors(
    settings: Settings,
    where: Addresses,
    say: Callable[[str], None],
    lock: TextIOWrapper | None,
    ports: Mapping[str, Any],
) -> "MemoryVectors":
    shape = shape_of(ports["embedder"]) if "embedder" in ports else await _shape(settings, say)
    caches = ports.get("caches")
    return await patiently(lambda: open_index(settings, where, shape, caches, lock))


async def _shape(settings: Settings, say: Callable[[str], None]) -> "IndexShape":
    """What the index holds, where nobody in the process embeds: no model is loaded for that."""
    from pipeline.models.embedder import described
    from pipeline.stores.points import IndexShape

    name, dimensions = await described(
        settings.embedding_model, cache_dir=_models(), on_progress=say
    )
    return IndexShape(name, dimensions)
