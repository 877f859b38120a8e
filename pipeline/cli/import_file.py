"""Import a file of memories: a row each, as JSON Lines.

Read in batches and in constant memory; what is wrong with a row is told, and costs the others nothing.
The place up to which all is stored is kept, so that an import that was ended goes on there and knows of all
in the end.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps as to_json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.options import AsJson, Data, named
from pipeline.cli.printing import duration, show, show_json, tell
from pipeline.cli.reaching import Located, client_of, located, quiet, running
from pipeline.cli.rejects import Rejects, by_id, by_number
from pipeline.domain.clock import VersionClock
from pipeline.errors import Refused, Unavailable

if TYPE_CHECKING:
    from pipeline.cli.confirming import Tally
    from pipeline.cli.lines import Line, Lines
    from pipeline.cli.loading import Batch, Count, Watching
    from pipeline.cli.places import Place


def register(app: typer.Typer) -> None:
    """Adds `import`."""
    app.command("import", rich_help_panel="Memories")(import_file)


def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="- reads standard input.")],
    source: Annotated[
        Literal["jsonl", "mem0-oss"],
        typer.Option("--from", help="What FILE is: mem0-oss takes the folder of a local Mem0."),
    ] = "jsonl",
    collection: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of a local Mem0: where its memories are, if not in mem0.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            "-u",
            metavar="USER",
            callback=named,
            help="Whose the rows are that name nobody.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all are stored.")
    ] = True,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=5_000, help="Rows published at a time.")
    ] = 500,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever an earlier import left.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace memories that are there, and bring back forgotten ones."
        ),
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the rows that cannot be used there, with the reason.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=1, help="Give up when nothing was stored for so long.")
    ] = 120.0,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Import a file: a memory on each line.

    A row is a JSON object with "user" (or "user_id") and "text", and perhaps "id", "date", "speaker",
    "run_id" (or "session"), "agent_id" and "app_id"; everything else is kept as metadata. Dates are
    ISO 8601, "2025-01-31 08:20:15" or "1:56 pm on 8 May, 2023", in UTC unless they have an offset. A
    row without an id gets one made of its content. A memory that is there already stays as it is, and
    one that was forgotten stays forgotten: importing a file again changes nothing, unless you say
    --overwrite. In the rows of one run, each memory is understood with the two before it.

    Ctrl-C loses nothing: the same command goes on where it stopped, and at its end all rows are
    searchable, or told. Rows that the stopped run had published count as stored, not as there already.

    From a Mem0 without its cloud (`mem0.Memory` over a local Qdrant) the memories come with --from
    mem0-oss and the folder, their ids kept, while others may have it open.

    \b
    [dim]$[/dim] hybrid-memory import memories.jsonl
    [dim]$[/dim] hybrid-memory import --from mem0-oss ~/.mem0/qdrant
    [dim]$[/dim] jq -c '{text: .note}' notes.jsonl | hybrid-memory import - --user alice

    Ends with 1 if a row could not be used, in this run or in the one that it goes on from.
    """
    here = located(data)
    quiet()
    patience_s = timeout if wait else None
    with _as_lines(file, source, collection) as lines:
        naming = by_number if source == "jsonl" else by_id
        rows = Rows(lines, user, overwrite, batch, patience_s, naming)
        place, count = running(_import(here, rows, rejects, restart=restart))
    _report(place, count, wait=wait, json=json)
    unusable = count.rejected + count.settled["set_aside"]
    if place is not None:
        unusable += place.rejected + place.settled.get("set_aside", 0)
    if unusable:
        raise typer.Exit(1)


@contextmanager
def _as_lines(file: str, source: str, collection: str | None) -> Generator[str]:
    """The file to read; what comes from elsewhere is written down as one first."""
    if source == "jsonl":
        if collection is not None:
            raise Refused("--collection goes with --from mem0-oss.")
        yield file
        return
    from pipeline.sources.mem0_oss import rows

    with TemporaryDirectory(prefix="hybrid-memory-") as folder:
        written = Path(folder) / "memories.jsonl"
        with written.open("w", encoding="utf-8") as out:
            for row in rows(Path(file).expanduser(), collection):
                out.write(to_json(row) + "\n")
        yield str(written)


@dataclass(frozen=True)
class Rows:
    """What is read, and how."""

    file: str
    user: str | None
    overwrite: bool
    batch_size: int
    patience_s: float | None
    """None where nothing is waited for."""
    naming: "Callable[[Line], str]" = by_number
    """What a row that cannot be used is called."""


class Reached:
    """Keeps the place of an import as it goes on; a pipe has none."""

    def __init__(self, begun: "Place | None", *, waits: bool) -> None:
        self._begun, self._place, self._waits = begun, begun, waits
        self._clock = VersionClock()

    def sending(self, lines: "Sequence[Line]", last: "Line") -> list[int] | None:
        """Kept before it is done; returns the version of each line, None where the client's clock gives it."""
        if self._place is None:
            return None
        self._keep(self._place.sending(last.number, now=self._clock.next()))
        if not self._place.sent:
            return None
        return [self._place.version_of(line.number) for line in lines]

    def settled(self, batch: "Batch", tally: "Tally") -> None:
        """All up to the end of the batch is done with, or nobody waits for it."""
        if self._begun is None or self._place is None:
            return
        before, line = Counter(self._begun.settled), batch.last.number
        self._keep(
            self._place.model_copy(
                update={
                    "line": line,
                    "sent": self._place.sent_after(line) if self._waits else self._place.sent,
                    "offset": batch.last.after,
                    "accepted": self._begun.accepted + batch.accepted,
                    "rejected": self._begun.rejected + batch.rejected,
                    "settled": dict(before + tally) if self._waits else {},
                    "conversations": batch.conversations,
                }
            )
        )

    def complete(self) -> None:
        """Nothing is left to go on with."""
        from pipeline.cli import places

        if self._place is not None:
            places.drop(self._place.source)

    def _keep(self, place: "Place") -> None:
        from pipeline.cli import places

        self._place = place
        places.keep(place)


async def _import(
    here: Located, rows: "Rows", rejects: Path | None, *, restart: bool
) -> "tuple[Place | None, Count]":
    """What an earlier run has left, and what became of the rest."""
    from pipeline.cli.loading import Count, Watching

    place = await _begun(rows, here, restart=restart)
    count, reached = Count(), Reached(place, waits=rows.patience_s is not None)
    told_before = place.read if place else 0
    rejected = Rejects(rejects, told_before=told_before, naming=rows.naming)
    watching = Watching(
        on_sending=reached.sending,
        on_settled=reached.settled,
        on_rejected=rejected.add,
        on_set_aside=lambda receipt, why: tell(f"{receipt.event.memory_id}: {why}", style="yellow"),
    )
    try:
        await _publish(here, rows, place, count, watching)
    except (asyncio.CancelledError, Unavailable) as error:
        stopped = f"Stopped: {count.accepted:,} accepted, none of them lost.{_resumption(place)}"
        if isinstance(error, Unavailable):
            raise Unavailable(f"{stopped}\n{error}") from error
        tell(stopped)
        raise
    rejected.tell_rest()
    reached.complete()
    return place, count


async def _publish(
    here: Located, rows: "Rows", place: "Place | None", count: "Count", watching: "Watching"
) -> None:
    from pipeline.cli.lines import count_lines, lines_of
    from pipeline.cli.loading import load
    from pipeline.cli.meter import Meter
    from pipeline.cli.rows import Conversations

    conversations = Conversations.from_kept(place.conversations) if place else Conversations()
    line, offset = (place.line, place.offset) if place else (0, 0)
    total = count_lines(Path(rows.file)) if place else None
    async with client_of(here.kafka, here.prefix) as client:
        with (
            _opened(rows.file, offset) as fd,
            Meter(total, done=line, stored=rows.patience_s is not None) as meter,
        ):
            await load(
                client,
                _looked_at(lines_of(fd, number=line, offset=offset), rows.file),
                user=rows.user,
                overwrite=rows.overwrite,
                batch_size=rows.batch_size,
                conversations=conversations,
                count=count,
                meter=meter,
                watching=watching,
                patience_s=rows.patience_s,
            )


def _resumption(place: "Place | None") -> str:
    return "" if place is None else " The same command goes on from here."


def _looked_at(lines: "Lines", file: str) -> "Lines":
    """The lines of a pipe. Raises Refused where its first one shows that it holds no rows at all."""
    from pipeline.cli.forms import check_form

    looked = file != "-"
    for line in lines:
        if line is not None and not looked:
            looked = True
            check_form(line.content or b"", file)
        yield line


async def _begun(rows: Rows, here: Located, *, restart: bool) -> "Place | None":
    """Where to begin; None for a pipe, of which no place can be kept."""
    from pipeline.cli import places
    from pipeline.cli.forms import check_form
    from pipeline.kafka.cluster import cluster_id

    file = rows.file
    if file == "-":
        return None
    target = f"{await cluster_id(here.kafka)} {here.prefix}"
    with _readable(file):
        source = places.source_of(
            Path(file), target=target, user=rows.user, overwrite=rows.overwrite
        )
        check_form(_head(Path(file)), file)
    if restart:
        places.drop(source)
    place = places.kept(source)
    if place is None:
        return places.Place(source=source)
    if rows.patience_s is not None and not place.is_settled:
        tell(
            f"An earlier import stopped after line {place.line:,} and waited for nothing: all rows are "
            "published again, which changes none, and waited for.",
            style="bold",
        )
        return place.from_the_start()
    if told := going_on(place):
        tell(told, style="bold")
    return place


def going_on(place: "Place") -> str:
    """What is said of an earlier run; nothing where it read nothing."""
    known = "up to which all is stored" if place.is_settled else "where an earlier import stopped"
    told = f"Goes on after line {place.line:,}, {known}; --restart begins anew."
    if place.read <= place.line:
        return told if place.line else ""
    if not place.line:
        told = "An earlier import stopped before its first rows were seen stored."
    return (
        f"{told} What it read after that, up to line {place.read:,}, is published once more: that changes and "
        "doubles nothing, and shows whether it is stored."
    )


def _head(file: Path) -> bytes:
    from pipeline.cli.forms import HEAD_BYTES

    with file.open("rb") as opened:
        return opened.read(HEAD_BYTES)


@contextmanager
def _opened(file: str, offset: int) -> Generator[int]:
    """A file descriptor at `offset`."""
    if file == "-":
        yield sys.stdin.fileno()
        return
    with _readable(file):
        opened = Path(file).open("rb", buffering=0)  # noqa: SIM115 - closed below
    with opened:
        opened.seek(offset)
        yield opened.fileno()


@contextmanager
def _readable(file: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror or error}.") from error


def _report(place: "Place | None", count: "Count", *, wait: bool, json: bool) -> None:
    rate = count.accepted / count.took_s if count.took_s else 0.0
    if json:
        before = place.settled if place else {}
        show_json(
            {
                "accepted": count.accepted,
                "accepted_before": place.accepted if place else 0,
                "rejected": count.rejected,
                "rejected_before": place.rejected if place else 0,
                **_as_json(count.settled if wait else None, ""),
                **_as_json(before, "_before"),
                "took_s": round(count.took_s, 3),
                "accepted_per_s": round(rate, 1),
            }
        )
        return
    read = count.accepted + count.rejected
    settled = in_words(count.settled) if wait else "the stores follow"
    show(
        f"Read {read:,} rows: {count.accepted:,} accepted, {count.rejected:,} rejected; {settled}; "
        f"took {duration(count.took_s)}, {rate:,.0f}/s."
    )
    if place is not None and place.line:
        known = Counter(place.settled) + count.settled if wait else None
        show(in_all(place.accepted + count.accepted, place.rejected + count.rejected, known))


def in_all(accepted: int, rejected: int, settled: Mapping[str, int] | None) -> str:
    """What became of the whole file, by all runs that it took; None where nothing was waited for."""
    rows = f"In all, with the rows of the run before: {accepted + rejected:,} rows, "
    if settled is not None and settled.get("stored", 0) == accepted and not rejected:
        return f"{rows}all stored."
    known = f": {in_words(settled)}" if settled is not None else ""
    return f"{rows}{accepted:,} accepted, {rejected:,} rejected{known}."


_NAMES = {
    "stored": "stored",
    "superseded": "already_there",
    "forgotten": "forgotten",
    "set_aside": "set_aside",
}


def _as_json(settled: Mapping[str, int] | None, suffix: str) -> dict[str, int | None]:
    """None where nothing was waited for."""
    return {
        f"{name}{suffix}": None if settled is None else settled.get(outcome, 0)
        for outcome, name in _NAMES.items()
    }


def in_words(settled: Mapping[str, int]) -> str:
    """What became of the rows that were accepted."""
    told = {
        "stored": "{:,} stored",
        "superseded": "already there: {:,}",
        "forgotten": "forgotten before, and left so: {:,}",
        "set_aside": "{:,} in the dead letters",
    }
    counted = [how.format(settled[name]) for name, how in told.items() if settled.get(name)]
    return ", ".join(counted) or "0 stored"
