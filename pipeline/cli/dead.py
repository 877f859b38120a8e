"""The dead letters: what could not be used, why, and what becomes of it."""

import json as jsonlib
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from pipeline.cli.dates import span
from pipeline.cli.options import AsJson, Data
from pipeline.cli.printing import (
    agreed,
    errors,
    moment,
    on_one_line,
    output,
    show,
    show_json,
    tell,
)
from pipeline.cli.reaching import located, quiet, running
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.kafka.dead_letters import Letter, Place, Selection
    from pipeline.kafka.redriving import Outcome, Settled

Places = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PLACE]...", help="As `dead list` prints them.", show_default=False),
]
Stage = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only of this stage.", show_default=False)
]
Reason = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Only where the reason holds this.", show_default=False),
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Set aside then or later.", show_default=False)
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Set aside earlier.", show_default=False)
]
MOST_SHOWN = 2_000
"""Characters of one field; `--raw` has all."""
All = Annotated[bool, typer.Option("--all", help="Every one of them.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell which ones they are.")]


def register(app: typer.Typer) -> None:
    """Adds `dead ...`."""
    dead = typer.Typer(
        help="Look at what could not be used; try it again.",
        no_args_is_help=True,
        suggest_commands=False,
    )
    dead.command("list")(list_dead)
    dead.command("show")(show_dead)
    dead.command("redrive")(redrive)
    dead.command("drop")(drop)
    app.add_typer(dead, name="dead", rich_help_panel="Operating")


def list_dead(
    stage: Stage = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """List the newest dead letters: when, at which stage, where it was, and why.

    \b
    [dim]$[/dim] hybrid-memory dead list
    [dim]$[/dim] hybrid-memory dead list --stage embedder --since 2026-01-31
    [dim]$[/dim] hybrid-memory dead list --limit 1000 --json | jq -r .reason | sort | uniq -c
    """
    selection = _selection(None, stage, reason, since, until)
    newest, stages = running(_newest(data, selection, limit))
    if not newest:
        _check_stage(stage)
    if json:
        for letter in newest:
            show_json(told(letter))
    elif newest:
        show(_table(newest))
        show(_sums(stages, shown=len(newest)))
    else:
        show("No dead letters.")


def show_dead(
    place: Annotated[str, typer.Argument(help="As `dead list` prints it, for example 2/17.")],
    raw: Annotated[bool, typer.Option("--raw", help="Its bytes and nothing else.")] = False,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Show one dead letter: where it was, why it failed, and what it holds.

    \b
    [dim]$[/dim] hybrid-memory dead show 2/17
    [dim]$[/dim] hybrid-memory dead show 2/17 --json | jq .reason
    [dim]$[/dim] hybrid-memory dead show 2/17 --raw | jq .text
    """
    if raw and json:
        raise Refused("--raw or --json: the bytes alone, or what is known of them.")
    letter = running(_one(data, place))
    value = letter.record.value or b""
    if raw:
        typer.get_binary_stream("stdout").write(value)
        return
    if json:
        show_json({**told(letter), "key": _legible(letter.record.key), "value": _legible(value)})
        return
    for name, about in described(letter).items():
        show(Text.assemble((f"{name:>12}  ", "dim"), on_one_line(about)))
    show()
    for name, field in content(value).items():
        show(Text.assemble((f"{name:>12}  ", "dim"), field))


def redrive(
    places: Places = None,
    stage: Stage = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    data: Data = None,
) -> None:
    """Send dead letters back to where they failed, once what stopped them is mended.

    \b
    [dim]$[/dim] hybrid-memory dead redrive 2/17
    [dim]$[/dim] hybrid-memory dead redrive --stage embedder --reason "not valid Unicode"

    It is the same event with the same version: what was revised or forgotten since stays so. One that
    fails again is a dead letter again.
    """
    selection = _selected(places, stage, reason, since, until, all_=all_)
    _settle(data, selection, "redriven", dry_run=dry_run, yes=yes)


def drop(
    places: Places = None,
    stage: Stage = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    data: Data = None,
) -> None:
    """Give dead letters up. Kafka deletes their bytes once no open letter stands before them.

    \b
    [dim]$[/dim] hybrid-memory dead drop 2/17
    [dim]$[/dim] hybrid-memory dead drop --stage classifier --until 2026-01-31 --dry-run
    """
    selection = _selected(places, stage, reason, since, until, all_=all_)
    _settle(data, selection, "dropped", dry_run=dry_run, yes=yes)


async def _newest(
    data: Path | None, selection: "Selection", limit: int
) -> "tuple[Sequence[Letter], Counter[str]]":
    from pipeline.kafka.redriving import open_letters

    here = located(data)
    quiet()
    newest: list[tuple[datetime, Place, Letter]] = []
    stages: Counter[str] = Counter()
    async with aclosing(open_letters(here.kafka, here.prefix, selection)) as letters:
        async for letter in letters:
            stages[letter.stage] += 1
            heappush(newest, (letter.at, letter.place, letter))
            if len(newest) > limit:
                heappop(newest)
    return [letter for *_, letter in sorted(newest)], stages


async def _one(data: Path | None, place: str) -> "Letter":
    letters, _ = await _newest(data, _selection([place], None, None, None, None), 1)
    if not letters:
        raise Refused(f"No dead letter is at {place}. `hybrid-memory dead list` shows them.")
    return letters[0]


def _settle(
    data: Path | None, selection: "Selection", outcome: "Outcome", *, dry_run: bool, yes: bool
) -> None:
    newest, stages = running(_newest(data, selection, 20))
    count = stages.total()
    if not count:
        _check_stage(selection.stage)
        show("No dead letters like that.")
        return
    if dry_run or not yes:
        show(_table(newest))
        show(_sums(stages, shown=len(newest)))
    if dry_run:
        return
    if not yes:
        verb = "Redrive" if outcome == "redriven" else "Give up"
        agreed(f"{verb} {count:,} dead letter{'s'[: count != 1]}?")
    running(_settled(data, selection, outcome, count))


async def _settled(
    data: Path | None, selection: "Selection", outcome: "Outcome", count: int
) -> None:
    from pipeline.kafka.redriving import settle

    here = located(data)
    with Progress(
        SpinnerColumn(), TextColumn("{task.completed:,.0f} of {task.total:,.0f}"), console=errors()
    ) as bar:
        task = bar.add_task(outcome, total=count)
        done = await settle(
            here.kafka,
            here.prefix,
            selection,
            outcome,
            on_progress=lambda n: bar.update(task, completed=n),
        )
    show(f"{done.settled:,} {outcome}.")
    if outcome == "redriven" and done.settled:
        tell("`hybrid-memory dead list` shows whether any of them came back.")
    if done.from_elsewhere or done.too_large or done.cut:
        raise Refused(why_left(done))


def why_left(done: "Settled") -> str:
    """Which letters could not be redriven, and why."""
    reasons = (
        (done.from_elsewhere, "without a topic of this stack that they came from"),
        (done.too_large, "too large for Kafka to take once more"),
        (done.cut, "cut when set aside, so that no whole message is left to send"),
    )
    told = [
        f"{len(letters):,} {why} (the first is {letters[0].place})"
        for letters, why in reasons
        if letters
    ]
    return (
        f"Left as they are: {'; '.join(told)}. `hybrid-memory dead show` shows one, `dead drop` gives "
        "it up."
    )


def _selected(
    places: list[str] | None,
    stage: str | None,
    reason: str | None,
    since: str | None,
    until: str | None,
    *,
    all_: bool,
) -> "Selection":
    """What was chosen. Raises Refused where nothing was: everything is only meant if it is said."""
    given = any((places, stage, reason, since, until))
    if given == all_:
        raise Refused(
            "Name the places (2/17), or choose by --stage, --reason, --since, --until; or --all of them."
        )
    return _selection(places, stage, reason, since, until)


def _selection(
    places: Sequence[str] | None,
    stage: str | None,
    reason: str | None,
    since: str | None,
    until: str | None,
) -> "Selection":
    from pipeline.kafka.dead_letters import Selection
    from pipeline.kafka.redriving import place_of

    first, last = span(since, until, ("--since", "--until"))
    return Selection(
        places=frozenset(map(place_of, places)) if places else None,
        stage=stage,
        reason=reason,
        since=first,
        until=last,
    )


def _check_stage(stage: str | None) -> None:
    """Raises Refused where there is no such stage; asked only where nothing was found.

    A stage of an earlier version has left letters, perhaps.
    """
    from pipeline.contract.flows import flows

    known = [flow.stage for flow in flows()]
    if stage is not None and stage not in known:
        raise Refused(f"No such stage: {stage}. There are {', '.join(known)}.")


def told(letter: "Letter") -> dict[str, Any]:
    """A letter for programs; a field is None where its headers do not tell."""
    return {
        "place": str(letter.place),
        "at": letter.at.isoformat(),
        "stage": _known(letter.stage),
        "topic": _known(letter.topic),
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": _known(letter.reason),
        "event_id": None if letter.event_id is None else str(letter.event_id),
        "redriven": letter.redriven,
        "cut": list(letter.cut),
        "bytes": len(letter.record.value or b""),
    }


def described(letter: "Letter") -> dict[str, str]:
    """A letter for people: what its headers do not tell is left out."""
    size = len(letter.record.value or b"")
    about = {
        "place": str(letter.place),
        "set aside": moment(letter.at),
        "stage": letter.stage,
        "was at": letter.origin,
        "why": letter.reason,
        "event": None if letter.event_id is None else str(letter.event_id),
        "redriven": f"{letter.redriven} times" if letter.redriven else None,
        "key": _legible(letter.record.key),
        "holds": f"{size:,} bytes",
        "cut": ", ".join(letter.cut) or None,
    }
    return {name: value for name, value in about.items() if value not in (None, "?")}


def content(value: bytes) -> dict[str, str]:
    """What it holds, field by field, long ones cut; what is no JSON object has no names."""
    try:
        fields: Any = jsonlib.loads(value)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return {"": on_one_line(_legible(value) or "", MOST_SHOWN)}
    named: dict[str, Any] = fields
    return {
        on_one_line(name): on_one_line(jsonlib.dumps(field, ensure_ascii=False), MOST_SHOWN)
        for name, field in named.items()
    }


def _legible(bytes_: bytes | None) -> str | None:
    return None if bytes_ is None else bytes_.decode("utf-8", "backslashreplace")


def _known(text: str) -> str | None:
    return None if text == "?" else text


def _table(letters: "Sequence[Letter]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("place", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    table.add_column("was at, and why", overflow="fold")
    # A terminal has no room for the reason beside so much else.
    between = "\n" if output().is_terminal else "  "
    for letter in letters:
        again = f" (redriven {letter.redriven}x)" if letter.redriven else ""
        cells = (
            letter.place,
            moment(letter.at),
            letter.stage,
            letter.origin,
            letter.reason + again,
        )
        *row, where, why = (Text(on_one_line(str(cell), 300)) for cell in cells)
        table.add_row(*row, Text(between).join([where, why]))
    return table


def _sums(stages: Counter[str], *, shown: int) -> Text:
    of_each = ", ".join(f"{count:,} at {stage}" for stage, count in stages.most_common())
    of_all = f"\n{stages.total():,} in all: {of_each}."
    return Text(on_one_line(of_all) + (" The newest are shown." * (shown < stages.total())), "dim")
