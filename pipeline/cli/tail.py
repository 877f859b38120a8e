"""Watch what is learnt, as it is learnt: memory.enriched, live."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pipeline.cli.away import telling_when_away
from pipeline.cli.options import AsJson, Data, named
from pipeline.cli.printing import moment, on_one_line, show, show_json, tell
from pipeline.cli.reaching import client_of, located, quiet, running
from pipeline.errors import Refused

if TYPE_CHECKING:
    from schemas.events import Enriched

USER_WIDTH, MOST_OF_USER, ABOUT_WIDTH = 8, 20, 20
VECTORS = {"text_vector", "token_vectors", "topic_vectors", "lexical_vector"}


def register(app: typer.Typer) -> None:
    """Adds `tail`."""
    app.command(rich_help_panel="Memories")(tail)


def tail(
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-u", metavar="USER", callback=named, help="Of one user.", show_default=False
        ),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Of all users.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="What is known already first.")
    ] = False,
    forgotten: Annotated[bool, typer.Option("--forgotten", help="What is forgotten, too.")] = False,
    json: AsJson = False,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With --json: the vectors, too (base64).")
    ] = False,
    data: Data = None,
) -> None:
    """Watch memories as they are learnt, until Ctrl-C: a line each, with its id at the end.

    --from-beginning tells all that Kafka still has: also what was revised or forgotten within the last two
    weeks or so.

    \b
    [dim]$[/dim] hybrid-memory tail --user alice
    [dim]$[/dim] hybrid-memory tail --all --from-beginning --json | jq .text
    """
    if user is not None and everyone:
        raise Refused("--user and --all contradict each other: give one of them.")
    if user is None and not everyone:
        raise Refused("Whose memories? Give --user USER, or --all for those of all users.")
    running(_tail(data, user, from_beginning, forgotten, json=json, vectors=vectors))


async def _tail(
    data: Path | None,
    user: str | None,
    from_beginning: bool,
    forgotten: bool,
    *,
    json: bool,
    vectors: bool,
) -> None:
    here = located(data)
    quiet()
    async with client_of(here.kafka, here.prefix) as client, telling_when_away(here.kafka):
        tell("Watching memory.enriched; Ctrl-C ends it.", style="dim")
        async for event in client.subscribe(
            user_id=user,
            all_users=user is None,
            from_beginning=from_beginning,
            forgotten=forgotten,
        ):
            if json:
                left_out = set[str]() if vectors else VECTORS
                show_json(event.model_dump_json(exclude=left_out, exclude_none=True))
            elif (said := line(event)) is not None:
                show(said)


def line(event: "Enriched") -> Text | None:
    """The event in a line; None for one that was told already."""
    from schemas.events import MemoryEnriched, MemoryForgotten

    user = f"{on_one_line(event.user_id, MOST_OF_USER):<{USER_WIDTH}}"
    start = Text.assemble((moment(event.published_at), "dim"), "  ", (user, "cyan"), "  ")
    match event:
        case MemoryEnriched():
            # One column for both: without a topic nothing moves. The id, which is long, stands last.
            told = ": ".join(filter(None, [event.domain, ", ".join(event.topics)]))
            return start + Text.assemble(
                (f"{on_one_line(told, ABOUT_WIDTH):<{ABOUT_WIDTH}}  ", "green"),
                on_one_line(event.text),
                (f"  {on_one_line(event.memory_id)}", "dim"),
            )
        case MemoryForgotten():
            return start + Text(f"forgot {on_one_line(event.memory_id)}", "red")
        case _:
            # One copy a partition went by; one line is enough.
            return start + Text("forgot everything", "red") if event.partition == 0 else None
