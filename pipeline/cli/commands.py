"""All commands, and what becomes of their errors: one line that says what to do, and an exit code.

The codes are those of sysexits.h: a shell or a supervisor reads from them whether to try again.
"""

import inspect
from typing import Annotated

import typer
from typer.core import TyperGroup

from pipeline.cli import (
    chaos,
    dead,
    demo,
    docs,
    import_file,
    mem0,
    memories,
    rebuild,
    search,
    stack,
    stages,
    status,
    tail,
    tidying,
    verify,
)
from pipeline.cli.printing import complain, show
from pipeline.errors import Halted, Missing, PipelineError, Refused, Unavailable, Unusable

EXIT_CODES: dict[type[PipelineError], int] = {
    Missing: 1,  # before what it is a kind of
    Refused: 2,
    Unusable: 65,  # EX_DATAERR
    Unavailable: 75,  # EX_TEMPFAIL
    Halted: 78,  # EX_CONFIG
}


class Telling(TyperGroup):
    """Tells errors we know how to answer in one line; anything else is a bug and shows its trace."""

    def invoke(self, ctx: typer.Context) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            complain(str(error))
            raise typer.Exit(exit_code(error)) from error
        except ModuleNotFoundError as error:
            if _is_ours(error):
                raise
            complain(missing(error))
            raise typer.Exit(EXIT_CODES[Halted]) from error


def exit_code(error: PipelineError) -> int:
    """By its remedy; 1 for one that has none."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def _is_ours(error: ModuleNotFoundError) -> bool:
    return (error.name or "").split(".")[0] in ("pipeline", "consumers", "producers", "schemas")


def missing(error: ModuleNotFoundError) -> str:
    """What to install for a command that needs more than the client."""
    return (
        f"This needs the package {error.name}, which is not installed. The stages come with "
        "`pip install 'hybrid-memory[stages]'`, the whole stack with "
        "`pip install 'hybrid-memory[embedded]'`."
    )


def flowing(text: str) -> str:
    """The paragraphs without our line breaks: a terminal has its own width. `\b` keeps those below it."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else " ".join(p.split()) for p in paragraphs)


app = typer.Typer(
    name="hybrid-memory",
    cls=Telling,
    help=(
        "A memory for AI agents that is a stream: publish, subscribe and search over Kafka.\n\n"
        "Start with `hybrid-memory demo`, or `hybrid-memory up` in one terminal and "
        '`hybrid-memory add "I love spicy Thai food" --user alice` in another.'
    ),
    no_args_is_help=True,
    # click does so, too.
    suggest_commands=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        show(f"hybrid-memory {version('hybrid-memory')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What stands before any command."""


for group in (
    stack,
    demo,
    memories,
    search,
    tail,
    import_file,
    mem0,
    status,
    verify,
    rebuild,
    tidying,
    stages,
    dead,
    chaos,
    docs,
):
    group.register(app)
for within in (app, *(group.typer_instance for group in app.registered_groups)):
    for command in within.registered_commands if within else ():
        command.help = flowing(inspect.getdoc(command.callback) or "")
