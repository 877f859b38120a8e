"""A stream whose stages run in the test's own process, so that a test may stop one and go on without it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from pipeline import app
from pipeline.embedded import Stack
from pipeline.settings import Settings

UPSTREAM = ("classifier", "embedder", "record_writer")
OWNER = ("vector_writer", "query", "operator_desk")


@asynccontextmanager
async def stages(stack: Stack, names: Sequence[str]) -> AsyncGenerator[None]:
    """These stages for the time of the block."""
    settings = Settings()
    until, ready = asyncio.Event(), asyncio.Event()
    where = app.addresses(settings, stack)
    run = asyncio.create_task(
        app.run(names, settings, where, until=until, on_ready=ready.set),
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([run, waiting], return_when=asyncio.FIRST_COMPLETED)
    try:
        if run.done():
            run.result()
        yield
    finally:
        waiting.cancel()
        until.set()
        await run
