"""The stages: run some in this process, and tell what flows from where to where."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipeline.cli.beginning import is_watched, step_told, tell_ready
from pipeline.cli.options import AsJson, Data
from pipeline.cli.printing import output, show, show_json, tell
from pipeline.cli.reaching import Located, located, read_settings, running
from pipeline.errors import Halted, Refused, Unavailable
from schemas.topics import EVENTS, MEM0_CYCLES, MEM0_SEEN

if TYPE_CHECKING:
    from pipeline.liveness import Liveness

MEM0 = "mem0"
"""What polls Mem0: no stage, but run like one."""
WEBHOOK = "/webhooks/mem0"
ABOUT_MEM0 = "publish every change in a Mem0 project, once; runs where MEM0_API_KEY is set."
STACK_PATIENCE_S = 15.0
"""How long a stage that the stack starts waits for the word of the stack."""


def register(app: typer.Typer) -> None:
    """Adds `run` and `stages`."""
    app.command(rich_help_panel="Stages")(run)
    app.command("stages", rich_help_panel="Stages")(list_stages)


def run(
    stages: Annotated[
        list[str],
        typer.Argument(metavar="STAGE...", help="One or more; `hybrid-memory stages` lists them."),
    ],
    health_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            help="Answer GET /live, /ready and /metrics there, for whoever watches it.",
            show_default=False,
        ),
    ] = None,
    health_host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Where it listens for that: 0.0.0.0 is everywhere, for a probe."
        ),
    ] = "127.0.0.1",
    data: Data = None,
) -> None:
    """Run stages in this process, until SIGTERM or Ctrl-C.

    Any number of processes may run the same stage: they share its partitions. Asked to stop, it
    finishes the batch in flight, commits and leaves; asked twice, it ends at once: the next owner
    repeats that batch.

    \b
    [dim]$[/dim] hybrid-memory run classifier
    [dim]$[/dim] hybrid-memory run vector_writer query
    [dim]$[/dim] MEM0_API_KEY=... hybrid-memory run mem0

    `mem0` is no stage: it watches a Mem0 project and publishes what changes there, one process at a
    time; a second one takes over from the first. With --health-port it also takes POST /webhooks/mem0,
    for Mem0's webhooks: a hint to look now, of which nothing else is believed.

    Ends with 78 where it cannot run as configured or most messages fail: starting it again would not
    help. Ends with 75 where Kafka does not answer at the start.
    """
    from pipeline.contract.flows import flows

    known = [*(flow.stage for flow in flows()), MEM0]
    unknown = [name for name in stages if name not in known]
    if unknown:
        raise Refused(f"No such stage: {', '.join(unknown)}. There are {', '.join(known)}.")
    health = (health_host, health_port) if health_port is not None else None
    if is_watched(read_settings()):
        tell(f"Starting {', '.join(stages)}.", style="dim")
    code = running(_run(list(dict.fromkeys(stages)), data, health))
    raise typer.Exit(code)


async def _run(names: Sequence[str], data: Path | None, health: tuple[str, int] | None) -> int:
    import structlog

    from pipeline import app
    from pipeline.app import unheard
    from pipeline.cli import logs
    from pipeline.liveness import Liveness

    settings = read_settings()
    logs.configure(settings.log_level, settings.log_format)
    log = structlog.get_logger().bind(stages=list(names))
    watched = is_watched(settings)

    def on_ready() -> None:
        log.info("ready")
        if watched:
            tell_ready(flow[:3] for flow in _flows(settings.topic_prefix) if flow[0] in names)

    try:
        here = await _located(data, watched=watched)
        until = _asked_to_stop()
        liveness, hinted = Liveness(), asyncio.Event()
        async with AsyncExitStack() as stack:
            if health is not None:
                hints = {WEBHOOK: hinted.set} if MEM0 in names else {}
                await _answer(stack, liveness, health, hints)
            await app.run(
                names,
                settings,
                here.addresses,
                until=until,
                liveness=liveness,
                on_ready=on_ready,
                on_step=step_told(settings, here.addresses) if watched else unheard,
                hinted=hinted,
            )
    except (Refused, Halted) as error:
        log.critical("cannot run", reason=str(error))
        return 78  # EX_CONFIG
    except Unavailable as error:
        log.critical("cannot start", reason=str(error))
        return 75  # EX_TEMPFAIL
    log.info("stopped")
    return 0


async def _answer(
    stack: AsyncExitStack,
    liveness: "Liveness",
    where: tuple[str, int],
    hints: Mapping[str, Callable[[], None]],
) -> None:
    """Tells whoever asks whether the process still drinks, and takes hints. Raises Refused."""
    from pipeline.health import answering

    host, port = where
    try:
        await stack.enter_async_context(answering(liveness, host=host, port=port, hints=hints))
    except OSError as error:
        raise Refused(
            f"--health-port {port} on {host} cannot be had: {error.strerror or error}."
        ) from error


async def _located(data: Path | None, *, watched: bool) -> Located:
    """Where everything is. A stage of a stack that is just starting waits until it is announced."""
    began = time.monotonic()
    while True:
        try:
            return located(data)
        except Refused:
            if data is None or time.monotonic() - began > STACK_PATIENCE_S:
                raise
        if watched:
            watched = False  # once is enough
            tell(
                f"No stack runs on {data} yet: waiting {STACK_PATIENCE_S:g} s for one.", style="dim"
            )
        await asyncio.sleep(0.1)


def _asked_to_stop() -> asyncio.Event:
    """Set by the first signal; the second one ends the process."""
    until = asyncio.Event()

    def asked(number: int) -> None:
        if until.is_set():
            os._exit(128 + number)
        until.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked, number)
    return until


def list_stages(json: AsJson = False) -> None:
    """Tell what flows from where to where.

    \b
    [dim]$[/dim] hybrid-memory stages
    """
    told = _flows(read_settings().topic_prefix)
    if json:
        for stage, reads, writes, about in told:
            show_json({"stage": stage, "reads": reads, "writes": writes, "about": about})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", no_wrap=True)
    table.add_column("reads", no_wrap=True)
    table.add_column("writes", no_wrap=True)
    table.add_column("what it does", overflow="fold")
    # A terminal may have no room for them side by side, and would break their names.
    between = ",\n" if output().is_terminal else ", "
    for stage, reads, writes, about in told:
        table.add_row(stage, reads, between.join(writes), about.rstrip("."))
    show(table)


def _flows(prefix: str) -> list[tuple[str, str, list[str], str]]:
    """Each stage and Mem0's poller: what it reads, what it writes, and what for."""
    from pipeline.contract.flows import flows

    told = [
        (
            flow.stage,
            flow.reads.under(prefix),
            [*flow.stores, *(topic.under(prefix) for topic in flow.published)],
            flow.about,
        )
        for flow in flows()
    ]
    kept = (EVENTS, MEM0_SEEN, MEM0_CYCLES)
    return [*told, (MEM0, "Mem0", [topic.under(prefix) for topic in kept], ABOUT_MEM0)]
