"""Chaos: a stack of its own is killed, stopped, paused and cut off, and nothing may be lost."""

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pipeline.cli.options import AsJson
from pipeline.cli.printing import duration, errors, interactive, show, show_json, tell
from pipeline.cli.reaching import quiet, running
from pipeline.cli.stack import one_or_three
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.chaos.report import Moment, Report

SAY_EVERY_S = 5.0
EXAMPLES = 5
"""Of each word that are shown."""


def register(app: typer.Typer) -> None:
    """Adds `chaos`."""
    app.command(rich_help_panel="Operating")(chaos)


def chaos(
    seed: Annotated[
        int | None,
        typer.Option(help="Replays the plan of that seed; a new one unless given."),
    ] = None,
    events: Annotated[int, typer.Option(min=200, help="How many are published.")] = 100_000,
    brokers: Annotated[
        int,
        typer.Option(min=1, max=3, metavar="1|3", callback=one_or_three, help="Nodes of Kafka."),
    ] = 1,
    brief: Annotated[
        bool,
        typer.Option("--brief", help="Each kind of fault once, instead of every one everywhere."),
    ] = False,
    json: AsJson = False,
) -> None:
    """Prove that nothing is lost: publish while everything is killed, stopped, paused and cut off.

    Starts a stack of its own in a temporary folder and touches no other. Memories are captured,
    revised, forgotten, asked for and repeated while each stage and each server is killed and comes back, junk
    arrives, texts are refused and the disk is full. Then what was acknowledged is compared with what
    Postgres and Qdrant hold, id by id and content by content; what each memory has heard of its
    conversation, and what its recalls came to, too.

    \b
    [dim]$[/dim] hybrid-memory chaos --events 5000 --brief
    [dim]$[/dim] hybrid-memory chaos --brokers 3 --seed 7

    100,000 events take about 22 minutes on two cores, 3,000 about 6.

    Ends with 1 where something was lost, duplicated, stale, resurrected or unseen, where `verify` finds
    something to mend, where a call was refused that was right, or where a fault hit nothing in flight and so proved nothing. Its logs are
    kept then.
    """
    from pipeline.chaos.plan import planned

    chosen = random.SystemRandom().randrange(2**31) if seed is None else seed
    plan = planned(chosen, events=events, brokers=brokers, brief=brief)
    again = f"--seed {chosen} --events {events} --brokers {brokers}" + (" --brief" if brief else "")
    tell(f"seed {chosen}  (again: hybrid-memory chaos {again})")
    folder = Path(tempfile.mkdtemp(prefix="hybrid-memory-chaos-"))
    # Also for the processes it starts: what stack was started last stays as the user's commands know it.
    os.environ["HYBRID_MEMORY_HOME"] = str(folder)
    quiet()
    try:
        report = _watched(plan, folder)
    except PipelineError:
        tell(f"Its logs are in {folder}.")
        raise
    if json:
        show_json(as_json(report))
    else:
        picture(report)
    if not report.ok:
        tell(f"Its logs are in {folder}.")
        raise typer.Exit(1)
    shutil.rmtree(folder, ignore_errors=True)


async def _until_told(run: "Coroutine[Any, Any, Report]") -> "Report":
    """The run, or its end on SIGTERM: its processes and its disk are put away, whoever ends it."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run


def _watched(plan: Any, folder: Path) -> "Report":
    from pipeline.chaos.run import chaos as run

    bars = _bars() if interactive() else None
    shown: AbstractContextManager[Any] = bars if bars is not None else nullcontext()
    told = Told(plan.events, bars)
    try:
        with shown:
            return running(_until_told(run(plan, folder, told)))
    except (asyncio.CancelledError, KeyboardInterrupt) as ended:
        shutil.rmtree(folder, ignore_errors=True)
        tell(f"Interrupted {told.where()}. Nothing was compared; its stack and its data are gone.")
        sent = signal.SIGINT if isinstance(ended, KeyboardInterrupt) else signal.SIGTERM
        raise typer.Exit(128 + sent) from None


def _bars() -> Progress:
    return Progress(
        TextColumn("published"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=errors(),
    )


class Told:
    """Shows what goes on: a bar in a terminal, elsewhere a line for each fault and now and then."""

    def __init__(self, of: int, bars: Progress | None) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=of) if bars else None
        self._last, self._told_at = "", 0.0
        self._began = time.monotonic()
        self._moment: Moment | None = None

    def where(self) -> str:
        """What it was at last, how long after its beginning."""
        after = f"after {duration(time.monotonic() - self._began)}"
        return f"{after}, at {_at(self._moment)}" if self._moment else after

    def __call__(self, moment: "Moment") -> None:
        self._moment = moment
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=moment.published, description=_at(moment))
            return
        now = time.monotonic()
        if moment.doing != self._last and (moment.strikes or now - self._told_at > SAY_EVERY_S):
            self._told_at, self._last = now, moment.doing
            elapsed = duration(now - self._began)
            tell(f"{moment.published:,} of {moment.of:,} published, {elapsed}  {_at(moment)}")


def _at(moment: "Moment") -> str:
    nth = f"fault {moment.fault} of {moment.faults}: " if moment.fault else ""
    return f"{nth}{moment.doing}"


def picture(report: "Report") -> None:
    """The report for people."""
    show(_faults(report))
    show()
    verdict = report.verdict
    show(
        f"{report.published:,} events in {duration(report.took_s)}: {verdict.memories:,} memories, "
        f"{verdict.turns:,} of them in conversations, {verdict.lives:,} recalled by "
        f"{report.answered:,} questions; {verdict.forgotten:,} forgotten, "
        f"{verdict.dead_letters:,} dead letters, "
        f"{report.unanswered:,} calls without an answer that were made again."
    )
    show(_words(report))
    _show_examples(report)
    for why, times in Counter(report.refused).most_common(EXAMPLES):
        show(f"Refused {times} times though the call was right: {why}", style="red")
    for told in report.skipped:
        show(f"skipped: {told}", style="yellow")
    if any(report.lag.values()):
        show(f"A stage stood still: {dict(report.lag)} records were not read.", style="red")
    if report.differing:
        show(f"`verify` found something to mend: {dict(report.differing)}.", style="red")
    if report.hollow:
        show(f"Hollow: nothing was in flight at {', '.join(report.hollow)}.", style="red")
    if report.ok:
        show("Nothing was lost.", style="bold green")


def _faults(report: "Report") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("fault")
    for heading in ("done", "hit", "in flight, at most"):
        table.add_column(heading, justify="right")
    by_name: dict[str, list[int]] = {}
    for strike in report.strikes:
        by_name.setdefault(strike.fault.name, []).append(strike.in_flight)
    for name, in_flight in sorted(by_name.items()):
        hit = sum(count > 0 for count in in_flight)
        table.add_row(name, str(len(in_flight)), str(hit), f"{max(in_flight):,}")
    return table


def _words(report: "Report") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for word in report.verdict.counts:
        table.add_column(word, justify="right")
    table.add_row(
        *(Text(f"{n:,}", "red" if n else "green") for n in report.verdict.counts.values())
    )
    return table


def _show_examples(report: "Report") -> None:
    for word in report.verdict.counts:
        found = [finding for finding in report.verdict.findings if finding.word == word]
        for finding in found[:EXAMPLES]:
            show(f"  {word} in the {finding.where}: {finding.what}", style="red")
        if len(found) > EXAMPLES:
            show(f"  ... and {len(found) - EXAMPLES:,} more", style="red")


def as_json(report: "Report") -> dict[str, Any]:
    """The report for programs."""
    return {
        "ok": report.ok,
        "seed": report.plan.seed,
        "brokers": report.plan.brokers,
        "events": report.published,
        "answered": report.answered,
        "took_s": round(report.took_s, 1),
        "unanswered": report.unanswered,
        **report.verdict.counts,
        "memories": report.verdict.memories,
        "in_conversations": report.verdict.turns,
        "recalled": report.verdict.lives,
        "forgotten": report.verdict.forgotten,
        "dead_letters": report.verdict.dead_letters,
        "refused": list(report.refused),
        "lag": dict(report.lag),
        "differing": dict(report.differing),
        "hollow": report.hollow,
        "skipped": list(report.skipped),
        "faults": [
            {"fault": one.fault.name, "at_s": one.at_s, "in_flight": one.in_flight}
            for one in report.strikes
        ],
        "findings": [
            {"word": f.word, "where": f.where, "what": f.what}
            for f in report.verdict.findings[:1_000]
        ],
    }
