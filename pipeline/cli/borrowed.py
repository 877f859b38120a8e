"""A stack for the time of a block, on data that it is given: one that runs there, or one that ends with the block.

Whatever else runs here stays as it is, and is what commands without --data go on to find.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.printing import tell
from pipeline.cli.serving import until_serving
from pipeline.cli.stack import plan
from pipeline.cli.starting import Starting

if TYPE_CHECKING:
    from pipeline.embedded import Plan, Process, Stack
    from pipeline.settings import Settings


@asynccontextmanager
async def borrowed_stack(data: Path, settings: "Settings") -> "AsyncGenerator[Stack]":
    """A stack on `data` whose stages serve. It is stopped at the end only if it was started for this."""
    from pipeline import app
    from pipeline.embedded import discover

    there = discover(data)
    if there is not None:
        tell(f"A stack runs on {there.data}: it is used, and goes on running.")
        names = [process.name for process in app.stage_processes(settings, there)]
        with Starting() as starting:
            await until_serving(there, settings, names, starting)
        yield there
        return
    made = replace(plan(data, settings, {}, _kafka_jars()), aside=True)
    async with _started(made, settings) as stack:
        yield stack


@asynccontextmanager
async def _started(made: "Plan", settings: "Settings") -> "AsyncGenerator[Stack]":
    from pipeline import app, embedded

    with Starting() as starting:

        def processes(stack: "Stack") -> "list[Process]":
            wanted = list(app.stage_processes(settings, stack))
            starting.stages = frozenset(process.name for process in wanted)
            return wanted

        async with embedded.running(replace(made, stages=processes), on_progress=starting) as stack:
            await until_serving(stack, settings, starting.stages, starting)
            starting.finish()
            yield stack


def _kafka_jars() -> Path | None:
    import os

    named = os.environ.get("KAFKA_JARS")
    return Path(named) if named else None
