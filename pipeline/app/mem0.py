"""How to get to the Mem0 that the settings name, and the poller that watches it."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from pipeline.app.neighbours import Addresses
from pipeline.errors import Refused
from pipeline.liveness import Liveness
from pipeline.settings import Settings

if TYPE_CHECKING:
    # They speak in arrays; the command line starts without numpy.
    from producers.mem0_poller import Opening


async def poll_mem0(
    settings: Settings,
    where: Addresses,
    until: asyncio.Event,
    liveness: Liveness,
    on_ready: Callable[[], None],
    hinted: asyncio.Event | None,
) -> None:
    """Watches the Mem0 that the settings name until `until` is set. Raises Refused, and what `poll` raises."""
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
