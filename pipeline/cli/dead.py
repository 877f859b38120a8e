"""The dead letters: what could not be used, and why."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.options import AsJson, Data
from pipeline.cli.printing import moment, on_one_line, show, show_json
from pipeline.cli.reaching import located, quiet, running

if TYPE_CHECKING:
    from pipeline.kafka.records import Record


def register(app: typer.Typer) -> None:
    """Adds `dead ...`."""
    dead = typer.Typer(help="Look at what could not be used.", no_args_is_help=True)
    dead.command("list")(list_dead)
    app.add_typer(dead, name="dead", rich_help_panel="Operating")


def list_dead(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """List the newest dead letters: when, at which stage, where it was, and why.

    \b
    [dim]$[/dim] hybrid-memory dead list
    [dim]$[/dim] hybrid-memory dead list --limit 1000 --json | jq -r .reason | sort | uniq -c
    """
    from pipeline.kafka.latest import latest
    from schemas.topics import DEAD

    here = located(data)
    quiet()
    letters = [letter(r) for r in running(latest(here.kafka, DEAD.under(here.prefix), limit))]
    if json:
        for told in letters:
            show_json(told)
    elif letters:
        show(_table(letters))
    else:
        show("No dead letters.")


def letter(record: "Record") -> dict[str, Any]:
    """What a dead letter's headers tell; a field is None where they do not."""
    from pipeline.kafka.dead_letters import PREFIX
    from pipeline.kafka.records import event_id_in, legible

    named = {name: value.decode("utf-8", "replace") for name, value in legible(record.headers)}
    event_id = event_id_in(record)
    return {
        "at": named.get(f"{PREFIX}at") or _iso(record.timestamp),
        "stage": named.get(f"{PREFIX}stage"),
        "topic": named.get(f"{PREFIX}topic"),
        "partition": _number(named.get(f"{PREFIX}partition")),
        "offset": _number(named.get(f"{PREFIX}offset")),
        "reason": named.get(f"{PREFIX}reason"),
        "event_id": None if event_id is None else str(event_id),
        "bytes": len(record.value or b""),
        "dead_partition": record.partition,
        "dead_offset": record.offset,
    }


def _table(letters: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("when", no_wrap=True)
    table.add_column("stage")
    table.add_column("was at", overflow="fold")
    table.add_column("why", ratio=1, overflow="fold")
    for told in letters:
        place = f"{told['topic']}/{told['partition']}/{told['offset']}"
        cells = (moment(_moment(told["at"])), told["stage"] or "?", place, told["reason"] or "?")
        table.add_row(*(Text(on_one_line(str(cell), 300)) for cell in cells))
    return table


def _moment(at: str) -> datetime:
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1_000, UTC).isoformat()


def _number(written: str | None) -> int | None:
    return int(written) if written is not None and written.isdigit() else None
