"""Stages in, a process that runs them until it is asked to stop: topics first, then ports, then the groups."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from pipeline.app.mem0 import poll_mem0
from pipeline.app.neighbours import Addresses, patiently
from pipeline.app.ports import open_ports, unheard
from pipeline.app.stages import SOURCES, built, wanted_by
from pipeline.ending import ended, unless
from pipeline.liveness import Liveness
from pipeline.settings import Settings


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
    wanted = wanted_by(names)
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
        running = [poll_mem0(settings, where, until, liveness, on_ready, hinted) for _ in sources]
        if names:
            running.append(
                serve(
                    where.kafka,
                    settings.topic_prefix,
                    built(names, ports),
                    until=until,
                    liveness=liveness,
                    on_ready=on_ready,
                    halting_share=settings.halting_share,
                )
            )
        await together(running, until)


async def together(running: Sequence[Coroutine[Any, Any, None]], until: asyncio.Event) -> None:
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


async def _topics(settings: Settings, where: Addresses) -> Mapping[str, int]:
    from pipeline.kafka.topics import ensure_topics

    return await patiently(
        lambda: ensure_topics(
            where.kafka,
            settings.topic_prefix,
            partitions=settings.kafka_partitions,
            replication_factor=settings.kafka_replication_factor,
        )
    )
