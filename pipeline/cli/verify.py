"""Whether Postgres, the index and the log hold the same; and making it so."""

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipeline.cli.options import AsJson, Data
from pipeline.cli.passing import Passing
from pipeline.cli.patience import saying
from pipeline.cli.printing import duration, show, show_json, tell
from pipeline.cli.reaching import Located, located, quiet, running

if TYPE_CHECKING:
    from pipeline.ports import Fingerprint, Fingerprints, MemoryRecords
    from pipeline.verifying.comparing import Difference
    from pipeline.verifying.repairing import Mending
    from pipeline.verifying.verifying import Report

UNDECIDED = 75  # EX_TEMPFAIL
WORDS = {
    "missing_in_index": "missing in the index",
    "missing_in_record": "missing in the record",
    "stale_in_index": "older in the index",
    "stale_in_record": "older in the record",
    "content_differs": "same version, other content",
    "resurrected_in_index": "forgotten in the record, alive in the index",
    "resurrected_in_record": "forgotten in the index, alive in the record",
    "watermark_differs": "a user's forgetting differs",
    "tier_differs": "stands elsewhere by its use in the index",
    "missing_in_record_but_in_log": "in the log, not in the record",
    "content_differs_from_log": "same version, other content than in the log",
}
"""The kinds of differences, for people."""


def register(app: typer.Typer) -> None:
    """Adds `verify`."""
    app.command(rich_help_panel="Operating")(verify)


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend the index from the record, then look again.")
    ] = False,
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Ask the record about the whole log, too.")
    ] = True,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Show so many differences.")
    ] = 20,
    patience: Annotated[
        float,
        typer.Option(metavar="S", min=0, help="Seconds to wait for a stage that stands still."),
    ] = 30.0,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Compare the record, the index and the log: versions, content hashes, what was forgotten, tiers.

    A key is a memory's or a user's, and stays when it is forgotten: there are more of them than memories.
    Works while everything runs: what is only on its way is no difference. --repair publishes again what a
    store lacks; the stages do the rest, so nothing newer is undone and nothing forgotten comes back.

    \b
    [dim]$[/dim] hybrid-memory verify
    [dim]$[/dim] hybrid-memory verify --repair --json | jq .mended

    Ends with 0 if all agree, with 1 if something differs, with 75 if a stage is behind and does not get
    on, so that nobody can tell.
    """
    here = located(data)
    quiet()
    began = time.monotonic()
    report, mended = running(_verify(here, repair=repair, log=log, keep=limit, patience_s=patience))
    took_s = time.monotonic() - began
    if json:
        show_json(as_json(report, mended, took_s))
    else:
        _show(report, mended, took_s)
    if report.differences:
        raise typer.Exit(1)
    if report.undecided:
        raise typer.Exit(UNDECIDED)


async def _verify(
    here: Located, *, repair: bool, log: bool, keep: int, patience_s: float
) -> "tuple[Report, Mending | None]":
    from pipeline import app
    from pipeline.verifying.lives import tell_lives
    from pipeline.verifying.repairing import mending

    async with AsyncExitStack() as stack:
        records, index = await stack.enter_async_context(
            app.open_for_comparing(here.settings, here.addresses)
        )
        unread = await _before_the_log(here, patience_s)
        look = partial(
            compared, here, records, index, log=log, patience_s=patience_s, unread=unread
        )
        if not repair:
            return await look(keep=keep), None
        mend = await stack.enter_async_context(mending(here.kafka, here.prefix, records))
        await look(keep=0, mend=mend)
        if mend.published:
            tell(f"{mend.published:,} published again; waiting for the stages, then looking again.")
            await mend.done(patience_s=patience_s)
        if mend.published or mend.behind:
            # What is in the index again does not know how it stood by its use.
            await tell_lives(records, mend.publishing)
        # What was found is not believed to be mended: it is looked at.
        return await look(keep=keep), mend


async def _before_the_log(here: Located, patience_s: float) -> dict[str, int]:
    """Waits until what was accepted is in the log; what it waits for in vain, by the stage before it."""
    from pipeline.kafka.readers import stage_readers
    from schemas.topics import CLASSIFIED, EVENTS

    unread: dict[str, int] = {}
    for topic, stage in ((EVENTS, "classifier"), (CLASSIFIED, "embedder")):
        async with (
            stage_readers(here.kafka, here.prefix, topic, stage, patience_s=patience_s) as readers,
            saying(f"Waiting until the {stage} has read what was accepted."),
        ):
            if not await readers.caught_up():
                unread[stage] = await readers.behind()
    return unread


async def compared(
    here: Located,
    records: "MemoryRecords",
    index: "Fingerprints",
    *,
    log: bool,
    keep: int,
    patience_s: float,
    mend: "Mending | None" = None,
    unread: Mapping[str, int] | None = None,
) -> "Report":
    """One look at everything that is in the log. With `mend`, what differs is published again on the way."""
    from pipeline.kafka.readers import stage_readers
    from pipeline.verifying.logged import compare_log
    from pipeline.verifying.repairing import WRITERS
    from pipeline.verifying.verifying import InTurn, Report, compare, nothing_more
    from schemas.topics import ENRICHED, RECALLED, TIERED

    report = Report(keep, unread=unread or {})
    reading = partial(stage_readers, here.kafka, here.prefix, patience_s=patience_s)
    async with (
        reading(ENRICHED, *WRITERS) as readers,
        reading(RECALLED, "lifecycle") as of_lives,
        reading(TIERED, "tier_writer") as of_tiers,
    ):
        if log:
            with Passing("log and record") as passing:
                await compare_log(
                    here.kafka,
                    ENRICHED.under(here.prefix),
                    records,
                    readers,
                    report,
                    take=mend.from_log if mend else nothing_more,
                    on_progress=passing,
                )
        if mend is not None and mend.published:
            # The record first: the index is mended from it.
            await mend.done(patience_s=patience_s)
        with Passing("record and index") as passing:
            await compare(
                records,
                index,
                readers,
                report,
                take=mend.from_record if mend else nothing_more,
                on_progress=passing,
                tiers=InTurn([of_lives, of_tiers]),
            )
    return report


def as_json(report: "Report", mend: "Mending | None", took_s: float) -> dict[str, Any]:
    """One object for programs."""
    told: dict[str, Any] = {
        "equal": report.equal,
        "compared": report.compared,
        "logged": report.logged,
        "differences": report.differences,
        "in_flight": report.in_flight,
        "unread": dict(report.unread),
        "kinds": report.by_kind(),
        "first": [_difference_json(each) for each in report.told],
        "took_s": round(took_s, 3),
    }
    if mend is not None:
        told |= {"mended": mend.published + mend.behind, "left_alone": mend.left_alone}
    return told


def _difference_json(found: "Difference") -> dict[str, Any]:
    return {
        "key": str(found.key),
        "kind": found.kind,
        "record": _held_json(found.record),
        "index": _held_json(found.index),
    }


def _held_json(held: "Fingerprint | None") -> dict[str, Any] | None:
    if held is None:
        return None
    return {
        "version": held.known.stamp.version,
        "tie": held.known.stamp.tie,
        "forgotten": held.known.forgotten,
        "content_hash": held.content_hash,
        "life": held.life,
    }


def _show(report: "Report", mend: "Mending | None", took_s: float) -> None:
    if mend is not None:
        show(f"Published again: {mend.published:,}. Tiers told again: {mend.behind:,}.")
    seen = f"{report.compared:,} keys of both stores, with those of what was forgotten"
    if report.logged:
        seen += f", {report.logged:,} records of the log"
    seen += f", in {duration(took_s)}."
    if report.equal:
        show(f"Equal: {seen}", style="green")
        return
    show(f"Compared: {seen}")
    for kind, count in report.by_kind().items():
        show(f"{count:>12,}  {WORDS[kind]}", style="red")
    if report.in_flight:
        show(
            f"{report.in_flight:>12,}  unknown: a writer is behind and does not get on",
            style="yellow",
        )
    for stage, count in report.unread.items():
        show(
            f"{count:>12,}  accepted, still before the {stage}, which does not get on",
            style="yellow",
        )
    if report.told:
        show()
        show(_table(report))
    _show_what_to_do(report, mend)


def _show_what_to_do(report: "Report", mend: "Mending | None") -> None:
    if report.undecided:
        tell("`hybrid-memory status` shows who is behind. Then look again.")
    if report.differences and mend is None:
        tell("`hybrid-memory verify --repair` mends the index from the record and the log.")
    elif report.differences:
        tell(
            "What is left cannot be mended by publishing it again: `hybrid-memory dead list` shows what "
            "was set aside, `hybrid-memory rebuild` makes the index anew."
        )


def _table(report: "Report") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("key", "what", "record", "index"):
        table.add_column(heading)
    for each in report.told:
        table.add_row(str(each.key), WORDS[each.kind], _state(each.record), _state(each.index))
    return table


def _state(held: "Fingerprint | None") -> str:
    if held is None:
        return "-"
    what = "forgotten" if held.known.forgotten else held.content_hash[:12]
    return f"{held.known.stamp.version} {what}"
