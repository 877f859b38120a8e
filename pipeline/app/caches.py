"""What a desk keeps of questions asked before, and under which settings that is right."""

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

from pipeline.app.neighbours import Addresses
from pipeline.settings import Settings

if TYPE_CHECKING:
    # They speak in arrays; the command line starts without numpy.
    from pipeline.stores.caches import Caches


DESK_CACHE_PATIENCE_S = 0.1
"""An asker waits: sooner without a cache than later with it."""


def opened_caches(settings: Settings, where: Addresses) -> "Caches":
    """The caches of a query desk; each of them may be off."""
    from pipeline.stores.caches import Caches, HotCache
    from pipeline.stores.redis import RedisCache

    size, url = settings.cache_memory_bytes, where.redis_url
    return Caches(
        HotCache(size) if size else None,
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
