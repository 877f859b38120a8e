"""Import a file of memories: a row each, as JSON Lines.

Read in batches and in constant memory; what is wrong with a row is told, and costs the others nothing.
A place is kept after each accepted batch, so that an import that was ended goes on where it stopped.
"""

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from json import dumps as to_json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli import places
from pipeline.cli.options import AsJson, Data
from pipeline.cli.printing import duration, show, show_json, tell
from pipeline.cli.reaching import Located, client_of, located, quiet, running
from pipeline.cli.rejects import Rejects
from pipeline.errors import Refused, Unavailable

if TYPE_CHECKING:
    from pipeline.cli.lines import Line, Lines
    from pipeline.cli.loading import Count
    from pipeline.cli.places import Place
    from pipeline.cli.rows import Conversations


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

    Ctrl-C loses nothing: the same command goes on where it stopped.

    From a Mem0 without its cloud (`mem0.Memory` over a local Qdrant) the memories come with --from
    mem0-oss and the folder, their ids kept; no other process may have it open.

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
        place, count = running(
            _import(
                here,
                lines,
                user,
                rejects,
                batch,
                restart=restart,
                overwrite=overwrite,
                patience_s=patience_s,
            )
        )
    _report(place, count, wait=wait, json=json)
    unusable = count.rejected + count.set_aside
    if place is not None:
        unusable += place.rejected + place.set_aside
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


async def _import(
    here: Located,
    file: str,
    user: str | None,
    rejects: Path | None,
    batch: int,
    *,
    restart: bool,
    overwrite: bool,
    patience_s: float | None,
) -> "tuple[Place | None, Count]":
    from pipeline.cli.lines import count_lines, lines_of
    from pipeline.cli.loading import Count, Watching, load
    from pipeline.cli.meter import Meter
    from pipeline.cli.rows import Conversations

    place = await _begun(file, here, user, restart=restart)
    count = Count()
    conversations = Conversations.from_kept(place.conversations) if place else Conversations()
    rejected = Rejects(rejects, append=place is not None and place.line > 0)
    reached = place

    def accepted(last: "Line") -> None:
        nonlocal reached
        if place is not None:
            reached = _reached(place, last, count, conversations)
            places.keep(reached)

    line, offset = (place.line, place.offset) if place else (0, 0)
    total = count_lines(Path(file)) if place else None
    watching = Watching(
        on_accepted=accepted,
        on_rejected=rejected.add,
        on_set_aside=lambda receipt, why: tell(f"{receipt.event.memory_id}: {why}", style="yellow"),
    )
    try:
        async with client_of(here.kafka, here.prefix) as client:
            with (
                _opened(file, offset) as fd,
                Meter(total, done=line, stored=patience_s is not None) as meter,
            ):
                await load(
                    client,
                    _looked_at(lines_of(fd, number=line, offset=offset), file),
                    user=user,
                    overwrite=overwrite,
                    batch=batch,
                    conversations=conversations,
                    count=count,
                    meter=meter,
                    watching=watching,
                    patience_s=patience_s,
                )
    except (asyncio.CancelledError, Unavailable) as error:
        if reached is not None and place is not None:
            # What was stored since the last batch was accepted.
            places.keep(_with_stored(reached, place, count))
        stopped = f"Stopped: {count.accepted:,} accepted, none of them lost.{_resumption(place)}"
        if isinstance(error, Unavailable):
            raise Unavailable(f"{stopped}\n{error}") from error
        tell(stopped)
        raise
    rejected.tell_rest()
    if place is not None:
        places.drop(place.source)
    return place, count


def _reached(
    begun: "Place", last: "Line", count: "Count", conversations: "Conversations"
) -> "Place":
    place = begun.model_copy(
        update={
            "line": last.number,
            "offset": last.after,
            "accepted": begun.accepted + count.accepted,
            "rejected": begun.rejected + count.rejected,
            "conversations": conversations.as_kept(),
        }
    )
    return _with_stored(place, begun, count)


def _with_stored(place: "Place", begun: "Place", count: "Count") -> "Place":
    stored, set_aside = begun.stored + count.stored, begun.set_aside + count.set_aside
    return place.model_copy(update={"stored": stored, "set_aside": set_aside})


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


async def _begun(file: str, here: Located, user: str | None, *, restart: bool) -> "Place | None":
    """Where to begin; None for a pipe, of which no place can be kept."""
    from pipeline.cli.forms import check_form
    from pipeline.kafka.cluster import cluster_id

    if file == "-":
        return None
    target = f"{await cluster_id(here.kafka)} {here.prefix}"
    with _readable(file):
        source = places.source_of(Path(file), target=target, user=user)
        check_form(_head(Path(file)), file)
    if restart:
        places.drop(source)
    place = places.kept(source)
    if place is None:
        return places.Place(source=source)
    tell(
        f"Goes on after line {place.line:,}, where an earlier import stopped; --restart begins anew.",
        style="bold",
    )
    return place


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
        show_json(
            {
                "accepted": count.accepted,
                "accepted_before": place.accepted if place else 0,
                "rejected": count.rejected,
                "rejected_before": place.rejected if place else 0,
                "stored": count.stored if wait else None,
                "stored_before": place.stored if place else 0,
                "set_aside": count.set_aside if wait else None,
                "set_aside_before": place.set_aside if place else 0,
                "took_s": round(count.took_s, 3),
                "accepted_per_s": round(rate, 1),
            }
        )
        return
    read = count.accepted + count.rejected
    stored = f"{count.stored:,} stored" if wait else "the stores follow"
    aside = f", {count.set_aside:,} in the dead letters" if count.set_aside else ""
    show(
        f"Read {read:,} rows: {count.accepted:,} accepted, {count.rejected:,} rejected, {stored}"
        f"{aside}; took {duration(count.took_s)}, {rate:,.0f}/s."
    )
    if place is not None and place.line:
        show(_before(place))


def _before(place: "Place") -> str:
    """What is known of the rows of the run that was ended, and what is not."""
    told = (
        f"Before, {place.accepted:,} were accepted and {place.rejected:,} rejected; {place.stored:,} "
        f"were seen stored, {place.set_aside:,} in the dead letters."
    )
    left = place.accepted - place.stored - place.set_aside
    if not left:
        return told
    return (
        f"{told} Of the other {left:,} nobody looked: `hybrid-memory status` shows whether a stage "
        "still works on them, `hybrid-memory dead list` which could not be used."
    )
