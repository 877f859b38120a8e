"""A stack for the time of a block: the one that runs here, or one that ends with the block."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.printing import tell
from pipeline.cli.serving import until_serving
from pipeline.cli.stack import plan
from pipeline.cli.starting import Starting
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.embedded import Plan, Process, Stack
    from pipeline.settings import Settings


@asynccontextmanager
async def borrowed_stack(
    data: Path | None, otherwise: Path, settings: "Settings"
) -> "AsyncGenerator[Stack]":
    """A stack whose stages serve: the one that runs, else one on `data`, or `otherwise` unless given.

    It is stopped at the end only if it was started for this. Raises Refused where one runs on other
    data than those that were asked for: of two, the commands would find only the last.
    """
    from pipeline import app
    from pipeline.embedded import discover

    there = discover()
    if there is not None and data is not None and not _is_on(there, data):
        raise Refused(
            f"A stack runs on {there.data}, not on {data}. Leave --data away to use it, or stop it "
            "with `hybrid-memory down`."
        )
    if there is not None:
        tell(f"A stack runs on {there.data}: it is used, and goes on running.")
        names = [process.name for process in app.stage_processes(settings, there)]
        with Starting() as starting:
            await until_serving(there, settings, names, starting)
        yield there
        return
    made = plan(data or otherwise, settings, {}, _kafka_jars())
    async with _started(made, settings) as stack:
        yield stack


def _is_on(stack: "Stack", data: Path) -> bool:
    return stack.data == data.expanduser().resolve()


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
