"""The embedded stack: up and down."""

import asyncio
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.mem0_trouble import poller_of
from pipeline.cli.options import Data, NewData
from pipeline.cli.printing import complain, on_one_line, own_name, show, tell, tell_a_log, untimed
from pipeline.cli.reaching import located, quiet, read_settings, running
from pipeline.cli.serving import until_serving
from pipeline.cli.starting import Starting
from pipeline.errors import PipelineError, Refused, Unavailable

if TYPE_CHECKING:
    from pipeline.embedded import PartState, Plan, Process, Stack
    from pipeline.settings import Settings

AFTERWARDS = (
    "What was started has ended, and nothing is lost: `hybrid-memory up` goes on from here."
)
SCARCE_BYTES = 100 * 2**20
"""A disk with less left may be why a part did not start: Kafka and Postgres take some at once."""

Port = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="A free one unless given.", show_default=False),
]


def one_or_three(brokers: int | None) -> int | None:
    """The number of brokers. Raises Refused for two, which are safer than one in nothing."""
    if brokers == 2:
        raise Refused(
            "--brokers takes 1 or 3: of two, neither may die, for no one is left to outvote."
        )
    return brokers


Brokers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=3,
        metavar="1|3",
        callback=one_or_three,
        help="Nodes of Kafka. With 3, one may die and nothing is lost; 1 unless given, or as before.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Adds `up` and `down`."""
    app.command(rich_help_panel="Stack")(up)
    app.command(rich_help_panel="Stack")(down)


def up(
    data: NewData = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it running in the background.")
    ] = False,
    kafka_port: Port = None,
    postgres_port: Port = None,
    valkey_port: Port = None,
    kafka_jars: Annotated[
        Path | None,
        typer.Option(
            envvar="KAFKA_JARS",
            metavar="DIR",
            help="A folder with Kafka's jars, such as `libs` of a Kafka 4; fetched unless given.",
            show_default=False,
        ),
    ] = None,
    brokers: Brokers = None,
    no_stages: Annotated[
        bool, typer.Option("--no-stages", help="Kafka, Postgres and Valkey only.")
    ] = False,
    in_background: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start the whole stack on this machine: Kafka, Postgres, Valkey, Qdrant Edge, all stages.

    Runs until Ctrl-C, or in the background with --detach until `hybrid-memory down`. Needs neither
    Docker nor an installed server. Data survive a restart. Every other command finds the stack by
    itself.

    \b
    [dim]$[/dim] hybrid-memory up
    [dim]$[/dim] hybrid-memory up --detach --data ~/memories
    [dim]$[/dim] hybrid-memory up --brokers 3 --data ~/memories-on-three

    To use a server of yours instead of one of the parts, set KAFKA_BOOTSTRAP_SERVERS, POSTGRES_DSN,
    QDRANT_URL or REDIS_URL. With MEM0_API_KEY set, it also follows that Mem0 project.

    With --detach, ends with 0 once every stage serves, whatever becomes of Mem0, and with what could not
    be started otherwise. Where Mem0 is not followed, `hybrid-memory status` ends with 1.
    """
    from pipeline.embedded import default_data

    folder = _usable(data or default_data())
    ports = {"kafka": kafka_port, "postgres": postgres_port, "valkey": valkey_port}
    given = {name: port for name, port in ports.items() if port is not None}
    if not (no_stages or in_background):
        _look_for_models()
    if detach:
        _up_detached(folder, given, kafka_jars, brokers, no_stages=no_stages)
    else:
        if in_background:
            tell_a_log()
        settings = read_settings()
        made = plan(folder, settings, given, kafka_jars, brokers)
        running(_up(made, settings, stages=not no_stages, in_background=in_background))


def _look_for_models() -> None:
    """Before anything is started: the stages would be started again and again in vain."""
    from pipeline import app

    app.look_for_models(read_settings())


def _usable(data: Path) -> Path:
    """The folder, made where it is missing. Raises Refused where it cannot be had."""
    from pipeline.embedded.state import make_private

    folder = data.expanduser().resolve()
    try:
        make_private(folder)
    except OSError as error:
        why = "it is a file" if folder.is_file() else error.strerror
        raise Refused(f"--data {folder} cannot be a data folder: {why}. Name another.") from error
    return folder


def down(data: Data = None) -> None:
    """Stop a stack that runs in the background, and wait until it has ended.

    \b
    [dim]$[/dim] hybrid-memory down
    """
    from pipeline.embedded import stop

    tell("Stopped." if stop(data) else "No stack runs here.")


def plan(
    data: Path,
    settings: "Settings",
    ports: Mapping[str, int],
    kafka_jars: Path | None,
    brokers: int | None = None,
) -> "Plan":
    """What to start, without stages: a part whose address the settings name is not started."""
    from pipeline.embedded import Plan

    return Plan(
        data=data,
        kafka_bootstrap_servers=settings.kafka_bootstrap_servers,
        postgres_dsn=settings.postgres_dsn.get_secret_value() if settings.postgres_dsn else None,
        redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
        kafka_jars=kafka_jars,
        brokers=brokers,
        ports=ports,
    )


async def _up(made: "Plan", settings: "Settings", *, stages: bool, in_background: bool) -> None:
    from pipeline import app, embedded

    quiet()
    welcome: list[asyncio.Task[None]] = []
    with Starting() as starting:

        def processes(stack: "Stack") -> "Sequence[Process]":
            if not stages:
                return []
            wanted = app.stage_processes(settings, stack)
            sources = app.source_processes(settings, stack)
            starting.stages = frozenset(process.name for process in wanted)
            starting.sources = frozenset(process.name for process in sources)
            return [*wanted, *sources]

        def on_ready(stack: "Stack") -> None:
            greet = _log_ready if in_background else _welcome
            welcome.append(asyncio.create_task(greet(stack, settings, starting)))

        try:
            await embedded.run(
                replace(made, stages=processes), on_progress=starting, on_ready=on_ready
            )
        except Unavailable as error:
            told = [str(error), *scarce(made.data), afterwards(made.data)]
            raise Unavailable("\n".join(told)) from error
        finally:
            for task in welcome:
                task.cancel()
    tell(f"Stopped. {AFTERWARDS}")


async def _welcome(stack: "Stack", settings: "Settings", starting: Starting) -> None:
    try:
        await until_serving(stack, settings, starting.stages, starting)
    except PipelineError as error:
        starting.finish()
        _complain_unless_stopping(error, starting)
        return
    starting.finish()
    show_stack(stack)
    _show_next(stages=bool(starting.stages), poller=poller_of(located(stack.data).stack))


async def _log_ready(stack: "Stack", settings: "Settings", starting: Starting) -> None:
    """What is written for whoever opens the log of the background; trouble is told there later, too."""
    try:
        await until_serving(stack, settings, starting.stages, starting)
    except PipelineError as error:
        _complain_unless_stopping(error, starting)
        return
    finally:
        starting.finish()
    tell("ready")


def _complain_unless_stopping(error: PipelineError, starting: Starting) -> None:
    # Who stops a stack knows why nothing answers.
    if not starting.is_stopping:
        complain(str(error))


def _up_detached(
    data: Path,
    ports: Mapping[str, int],
    kafka_jars: Path | None,
    brokers: int | None,
    *,
    no_stages: bool,
) -> None:
    from pipeline.embedded import detach

    argv = [sys.executable, "-m", "pipeline.cli", "up", "--data", str(data), "--in-background"]
    argv += [f"--{name}-port={port}" for name, port in ports.items()]
    argv += [f"--kafka-jars={kafka_jars.resolve()}"] if kafka_jars else []
    argv += [f"--brokers={brokers}"] if brokers else []
    argv += ["--no-stages"] if no_stages else []
    settings = read_settings()
    # Whoever ends this before the stack is up, as `timeout` does, wants it as little as after Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    said: list[str] = []

    def pass_on(line: str) -> None:
        said.append(untimed(line))
        tell(said[-1])

    try:
        stack = detach(argv, data, on_line=pass_on)
        _until_all_serve(stack, settings, stages=not no_stages)
    except KeyboardInterrupt:
        tell(f"Not started. {AFTERWARDS}")
        raise
    except PipelineError as error:
        why, in_its_log, _ = str(error).partition(" The end of its log:\n")
        if in_its_log:
            why += f" What it said stands above, and in {data / 'logs' / 'up.log'}."
        untold = [line for line in scarce(data) if line not in said]
        raise type(error)("\n".join([why, *untold])) from error
    show_stack(stack)
    _show_next(stages=not no_stages, poller=poller_of(located(stack.data).stack))


def _until_all_serve(stack: "Stack", settings: "Settings", *, stages: bool) -> None:
    """Raises Unavailable where a stage does not come. Then, as after Ctrl-C, all of them are stopped."""
    from pipeline import app, embedded

    names = [process.name for process in app.stage_processes(settings, stack)] if stages else []
    quiet()
    try:
        with Starting() as starting:
            running(until_serving(stack, settings, names, starting))
    except (KeyboardInterrupt, PipelineError) as error:
        tell("Stopping what was started.", style="dim")
        embedded.stop(stack.data)
        if isinstance(error, PipelineError):
            raise type(error)(f"{error}\n{afterwards(stack.data)}") from error
        raise


def afterwards(data: Path) -> str:
    return f"{AFTERWARDS} Its logs are in {data / 'logs'}."


def scarce(data: Path) -> list[str]:
    """What to do where there is hardly any room for the data: each part fails of it in its own way."""
    try:
        free = shutil.disk_usage(data).free
    except OSError:
        return []
    if free > SCARCE_BYTES:
        return []
    return [
        f"The disk of {data} has {free // 2**20} MiB left: make room there, or name another folder "
        "with --data."
    ]


def show_stack(stack: "Stack") -> None:
    """Each part's address, without passwords."""
    here = located(stack.data)
    where = here.addresses
    index = where.qdrant_url or f"Qdrant Edge in {where.qdrant_path}"
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("Kafka", where.kafka.bootstrap_servers)
    table.add_row("Postgres", masked(where.postgres_dsn or ""))
    table.add_row("Valkey", masked(where.redis_url or ""))
    table.add_row("Index", masked(index))
    # Looked up anew: a stack is announced before all of its processes run.
    poller = poller_of(here.stack)
    if poller is not None:
        followed = here.settings.mem0_local or here.settings.mem0_host
        table.add_row("Mem0", Text(following(masked(str(followed)), poller)))
    table.add_row("Logs", str(stack.data / "logs"))
    show()
    show(table)


def following(address: str, poller: "PartState") -> str:
    """What is certain of the poller: that it does not run, or that it tries to."""
    if poller.halted:
        return f"{address}, not followed: {on_one_line(poller.halted)}"
    return f"{address}, looked at from now on: `{own_name()} status` tells what came of it"


def masked(address: str) -> str:
    """The address without its password, and without a query, which may hold another."""
    try:
        split = urlsplit(address)
        password = split.password
    except ValueError:
        return "(an address that cannot be read)"
    shown = address.replace(f":{password}@", ":***@") if password else address
    return shown.partition("?")[0] + "?..." if split.query else shown


def _show_next(*, stages: bool, poller: "PartState | None") -> None:
    show()
    if poller and poller.halted:
        show("ready, but Mem0 is not followed", style="bold yellow")
    else:
        show("ready", style="bold green")
    if not stages:
        show("No stages run: start some with `hybrid-memory run STAGE`.")
        return
    show("Try:", style="bold")
    for line in (
        'add "I love spicy Thai food" --user alice',
        'search "dinner ideas" --user alice',
        "tail --all        what is learnt, as it is learnt",
        "status            lag, counts, parts",
    ):
        show(f"  {own_name()} {line}")
