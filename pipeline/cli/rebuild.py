"""The index anew, from the log or from the record, while the old one answers."""

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.cli.options import AsJson, Data
from pipeline.cli.passing import Passing
from pipeline.cli.printing import duration, show, show_json, tell
from pipeline.cli.reaching import Located, located, quiet, running

if TYPE_CHECKING:
    from pipeline.verifying.filling import Filling
    from pipeline.verifying.verifying import Report

Source = Literal["log", "record"]
PATIENCE_S = 60.0
_FILLING = "Nothing has changed: the old index is in use, and the fresh one is removed."
_SWITCHING = (
    "It was about to switch over: the old index is in use, or the fresh one; `hybrid-memory verify` tells "
    "whether anything is missing."
)
_COMPARING = "The fresh index is in use; `hybrid-memory verify` compares it with the record."


def register(app: typer.Typer) -> None:
    """Adds `rebuild`."""
    app.command(rich_help_panel="Operating")(rebuild)


def rebuild(
    source: Annotated[
        Source,
        typer.Option(
            "--from",
            help="`log`: the compacted topic, vectors and all. `record`: Postgres, embedded anew.",
        ),
    ] = "log",
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Make the index anew beside the one in use, and switch over when it is as far.

    Searches go on meanwhile, and nothing that is written meanwhile is lost. The new one is compared with
    the record before anybody searches in it: what the record knows to be forgotten stays so. Interrupted,
    it leaves the old index in place. At the end everything is compared once more.

    \b
    [dim]$[/dim] hybrid-memory rebuild
    [dim]$[/dim] hybrid-memory rebuild --from record

    After the embedding model was changed: stop the stages, rebuild --from record, start them again.

    Ends with 1 if the new index differs from the record: `hybrid-memory verify` says in what.
    """
    here = located(data)
    quiet()
    began = time.monotonic()
    filling, report = running(_rebuild(here, source))
    took_s = time.monotonic() - began
    if json:
        show_json(as_json(filling, report, took_s))
    else:
        _show(filling, report, took_s)
    if not report.equal:
        raise typer.Exit(1)


async def _rebuild(here: Located, source: Source) -> "tuple[Filling, Report]":
    from pipeline import app

    with _told_if_stopped(_FILLING) as reached:
        opened = app.open_for_rebuilding(here.settings, here.addresses, tell)
        async with opened as (fresh, filling, records):
            await filling.from_forgettings(records)
            if source == "record":
                await _from_record(here, filling, records)
            else:
                with Passing("log to index") as passing:
                    await filling.from_log(passing)
            with Passing("record and fresh index") as passing:
                await filling.agree(records, passing)
            await _fill_tiers(filling, records)
            tell("Filled. Catching up with what came meanwhile, then switching.")
            reached(_SWITCHING)
            await fresh.replace(filling)
            reached(_COMPARING)
            await _tell_tiers(here, records)
        return filling, await _compared(here)


async def _fill_tiers(filling: "Filling", records: Any) -> None:
    from pipeline.verifying.lives import fill_lives

    with Passing("tiers") as passing:
        await fill_lives(records, filling.fresh, passing)


async def _tell_tiers(here: Located, records: Any) -> None:
    """What was heard of since they were filled in, of memories that came meanwhile too."""
    from pipeline.kafka.publishing import publishing
    from pipeline.verifying.lives import tell_lives

    async with publishing(here.kafka, here.prefix) as telling:
        await tell_lives(records, telling)


@contextmanager
def _told_if_stopped(begun: str) -> Generator[Callable[[str], None]]:
    """Tells on Ctrl-C in what state things are; what is yielded takes the next state."""
    state = begun

    def reached(now: str) -> None:
        nonlocal state
        state = now

    try:
        yield reached
    except asyncio.CancelledError:
        tell(f"Stopped. {state}")
        raise


async def _compared(here: Located) -> "Report":
    from pipeline import app
    from pipeline.cli.verify import compared

    async with app.open_for_comparing(here.settings, here.addresses) as (record, index):
        return await compared(here, record, index, log=False, keep=0, patience_s=PATIENCE_S)


async def _from_record(here: Located, filling: "Filling", records: Any) -> None:
    from pipeline.kafka.readers import read_so_far
    from pipeline.kafka.records import group_of

    # What the record has not got yet comes from the log afterwards.
    group = group_of(here.prefix, "record_writer")
    filling.at = await read_so_far(here.kafka, filling.topic, group)
    with Passing("record to index") as passing:
        await filling.from_record(records, passing)


def as_json(filling: "Filling", report: "Report", took_s: float) -> dict[str, Any]:
    """One object for programs."""
    return {
        "written": filling.written,
        "mended": filling.mended,
        "unusable": filling.unusable,
        "equal": report.equal,
        "compared": report.compared,
        "differences": report.differences,
        "in_flight": report.in_flight,
        "kinds": report.by_kind(),
        "took_s": round(took_s, 3),
    }


def _show(filling: "Filling", report: "Report", took_s: float) -> None:
    show(f"{filling.written:,} states written into the fresh index, in {duration(took_s)}.")
    if filling.mended:
        show(f"{filling.mended:,} of them from the record: the log does not tell of them any more.")
    if filling.unusable:
        show(f"{filling.unusable:,} could not be used and were left out.", style="yellow")
    if report.equal:
        show(f"Equal with the record: {report.compared:,} keys compared.", style="green")
    else:
        show("It is not equal with the record: `hybrid-memory verify` says in what.", style="red")
