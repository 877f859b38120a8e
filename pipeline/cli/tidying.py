"""What nobody needs in sight is put away, and brought back: prune, consolidate, restore.

What is to happen is decided in `pipeline/tidying`; here it is asked for and told.
"""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, Data, named
from pipeline.cli.passing import Passing
from pipeline.cli.printing import on_one_line, show, show_json, tell
from pipeline.cli.reaching import Located, located, quiet, running
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.ports import Belonging
    from pipeline.tidying.looking import Tidied, Tools

PATIENCE_S = 60.0
_TEXT_CHARS = 80

OneUser = Annotated[
    str | None,
    typer.Option(
        "--user", "-u", metavar="USER", callback=named, help="Whose memories.", show_default=False
    ),
]
AllUsers = Annotated[bool, typer.Option("--all-users", help="Those of everybody.")]
Yes = Annotated[
    bool, typer.Option("--yes/--dry-run", help="Do it; unless given, only tell what would happen.")
]
Shown = Annotated[int, typer.Option("--limit", "-n", min=0, help="Show so many.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (prune, consolidate, restore):
        app.command(rich_help_panel="Operating")(command)


def prune(
    user: OneUser = None,
    all_users: AllUsers = False,
    below: Annotated[
        float, typer.Option(min=0, max=1, help="Importance and strength must both be less.")
    ] = 0.2,
    unused_for: Annotated[
        str,
        typer.Option(metavar="DAYS", help="Neither recalled nor changed for so long, as in 90d."),
    ] = "90d",
    yes: Yes = False,
    limit: Shown = 20,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Archive what was never important, has faded, and was not used for long.

    Archived memories stay in both stores, and are found by `search --tier archived`. Nothing is deleted.

    \b
    [dim]$[/dim] hybrid-memory prune --user alice
    [dim]$[/dim] hybrid-memory prune --all-users --below 0.3 --unused-for 180d --yes
    [dim]$[/dim] hybrid-memory restore --user alice --batch prune-20260501-ab12cd34 --yes
    """
    from pipeline.domain.pruning import Rule
    from pipeline.tidying import pruning

    whose = _whose(user, all_users=all_users)
    rule = Rule(below, days(unused_for, "--unused-for"))
    tidied = _nothing_yet("prune", limit)

    async def work(tools: "Tools") -> None:
        await pruning.prune(tools, tidied, whose, rule)

    _run(data, "prune", tidied, whose, work, yes=yes, json=json)
    if not tidied.counts:
        tell(
            f"Archived is what is below {below:g} in importance and strength (--below) and was not used "
            f"for {rule.unused_for / timedelta(days=1):g} days (--unused-for)."
        )


def consolidate(
    user: OneUser = None,
    all_users: AllUsers = False,
    within: Annotated[
        str, typer.Option(metavar="DAYS", help="Only what was told so near in time, as in 1d.")
    ] = "1d",
    yes: Yes = False,
    limit: Shown = 20,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Archive what another memory of the same user says in the same words.

    The same words in the same order, of the same speaker, agent, application and conversation, with the same
    metadata; case, punctuation and fillers may differ. The one that was used most stays, else the newest, and
    tells whom it stands for.

    \b
    [dim]$[/dim] hybrid-memory consolidate --user alice
    [dim]$[/dim] hybrid-memory consolidate --user alice --within 30d --yes
    """
    from pipeline.tidying import consolidating

    whose = _whose(user, all_users=all_users)
    near = days(within, "--within")
    tidied = _nothing_yet("consolidate", limit)

    async def work(tools: "Tools") -> None:
        await consolidating.consolidate(tools, tidied, whose, near)

    _run(data, "consolidate", tidied, whose, work, yes=yes, json=json)


def restore(
    memory_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Memories to bring back.")
    ] = None,
    user: OneUser = None,
    all_users: AllUsers = False,
    batch: Annotated[
        str | None,
        typer.Option(help="All that one prune or consolidate has archived.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is archived.")] = False,
    yes: Yes = False,
    limit: Shown = 20,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Bring back what was archived, as strong as it was by its use.

    \b
    [dim]$[/dim] hybrid-memory restore ID --user alice --yes
    [dim]$[/dim] hybrid-memory restore --all-users --batch prune-20260501-ab12cd34 --yes

    Ends with 1 where there is no such memory, or nothing is archived any more that the batch put away.
    """
    from pipeline.domain.tiers import is_archived
    from pipeline.tidying import restoring

    whose = _whose(user, all_users=all_users)
    chosen = frozenset(memory_ids or ())
    if sum(map(bool, (chosen, batch, everything))) != 1:
        raise Refused("Say what to bring back: ids, --batch BATCH, or --all.")
    if chosen and whose is None:
        raise Refused("An id is one user's: give --user USER.")
    tidied = _nothing_yet("restore", limit)

    found: dict[str, bool] = {}

    def wanted(told: "Belonging") -> bool:
        archived = told.told
        if told.memory_id in chosen:
            found[told.memory_id] = archived is not None and is_archived(
                archived.archived_version, told.version
            )
        return archived is not None and (
            everything
            or told.memory_id in chosen
            or (batch is not None and archived.batch == batch)
        )

    async def work(tools: "Tools") -> None:
        await restoring.restore(tools, tidied, whose, wanted)

    _run(data, "restore", tidied, whose, work, yes=yes, json=json)
    if batch and not tidied.counts:
        tell(f"There is no such batch: nothing is archived that {on_one_line(batch)} put away.")
    for line in in_vain(chosen, found):
        tell(line)
    if chosen - found.keys() or (batch and not tidied.counts):
        raise typer.Exit(1)


def in_vain(chosen: Collection[str], found: Mapping[str, bool]) -> Sequence[str]:
    """Why some of the chosen ids were not brought back; `found` says of each whether it was put away."""
    unknown = [on_one_line(id_) for id_ in sorted(chosen) if id_ not in found]
    in_sight = [on_one_line(id_) for id_ in sorted(chosen) if not found.get(id_, True)]
    told = (
        (unknown, "There is no such memory: {}."),
        (in_sight, "Not put away, so there is nothing to bring back: {}."),
    )
    return [line.format(", ".join(ids)) for ids, line in told if ids]


def days(given: str, option: str) -> timedelta:
    """`90d` as a time span. Raises Refused."""
    try:
        span = timedelta(days=float(given.removesuffix("d"))) if given.endswith("d") else None
    except (ValueError, OverflowError):
        span = None
    if span is None or span < timedelta():
        raise Refused(f"{option} takes days, as in {option} 90d.")
    return span


def _whose(user: str | None, *, all_users: bool) -> str | None:
    """The user; None for everybody, where that was said."""
    if (user is None) != all_users:
        raise Refused("Say whose memories: --user USER, or --all-users.")
    return user


def _nothing_yet(command: str, limit: int) -> "Tidied":
    from pipeline.tidying.looking import Tidied

    return Tidied(f"{command}-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(4)}", limit)


def _run(
    data: Any,
    command: str,
    tidied: "Tidied",
    whose: str | None,
    work: "Callable[[Tools], Awaitable[None]]",
    *,
    yes: bool,
    json: bool,
) -> None:
    here = located(data)
    quiet()

    async def whole() -> None:
        async with _tools(here, yes=yes) as tools:
            with Passing(command) as passing:
                await work(replace(tools, on_progress=passing))
        if yes and tidied.counts:
            await _done(here)

    running(whole())
    first = [_shortened(each) for each in tidied.told]
    if json:
        told = {"batch": tidied.batch, "done": yes, "looked_at": tidied.looked_at}
        apart = {"count": tidied.apart, "within_days": tidied.apart_days}
        more = {"further_apart": apart} if tidied.apart else {}
        show_json(told | {"counts": dict(tidied.counts), "first": first} | more)
        return
    _show(tidied, first, whose, yes=yes)


def _shortened(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: on_one_line(value, _TEXT_CHARS) if name in ("text", "into_text") else value
        for name, value in told.items()
    }


@asynccontextmanager
async def _tools(here: Located, *, yes: bool) -> "AsyncGenerator[Tools]":
    from pipeline import app
    from pipeline.kafka.publishing import publishing
    from pipeline.tidying.looking import Tools

    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(
            app.open_ports(here.settings, here.addresses, ["records"])
        )
        publish = (
            await stack.enter_async_context(publishing(here.kafka, here.prefix)) if yes else None
        )
        yield Tools(ports["records"], publish, here.settings.tiers, datetime.now(UTC))


async def _done(here: Located) -> None:
    """Waits until searches see it; what is on its way is not lost."""
    from pipeline.kafka.readers import stage_readers
    from schemas.topics import RECALLED, TIERED

    for topic, stage in ((RECALLED, "lifecycle"), (TIERED, "tier_writer")):
        reading = stage_readers(here.kafka, here.prefix, topic, stage, patience_s=PATIENCE_S)
        async with reading as readers:
            if not await readers.caught_up():
                tell(f"{stage} is behind: searches see it once that is done. Nothing is lost.")
                return


def _show(
    tidied: "Tidied", first: Sequence[Mapping[str, Any]], whose: str | None, *, yes: bool
) -> None:
    _show_each(first)
    if (more := tidied.counts.total() - len(first)) > 0:
        show(f"... and {more:,} more.", style="dim")
    _show_sum(tidied, whose, yes=yes)
    if tidied.apart:
        tell(
            f"{tidied.apart:,} more say the same, told further apart: "
            f"--within {tidied.apart_days}d takes them, too."
        )


def _show_each(first: Sequence[Mapping[str, Any]]) -> None:
    for each in first:
        about = [
            f"{name} {on_one_line(str(value))}"
            for name, value in each.items()
            if name not in ("text", "memory_id", "into_text")
        ]
        if "into_text" in each:
            about[-1] += f"  {each['into_text']}"
        show(f"{on_one_line(each['memory_id'])}  {each['text']}")
        show("  " + ", ".join(about), style="dim")


def _show_sum(tidied: "Tidied", whose: str | None, *, yes: bool) -> None:
    of = "everybody" if whose is None else whose
    count = tidied.counts.total()
    looked_at = f"{tidied.looked_at:,} {'memory' if tidied.looked_at == 1 else 'memories'} of {of}"
    what = "brought back" if tidied.counts["restored"] else "archived"
    if not count:
        show(f"Nothing to do: {looked_at} looked at.")
    elif yes:
        show(f"{count:,} of {looked_at} {what}.", style="green")
        if what == "archived":
            user = "--all-users" if whose is None else f"--user {whose}"
            tell(f"`hybrid-memory restore {user} --batch {tidied.batch} --yes` brings them back.")
    else:
        show(f"{count:,} of {looked_at} would be {what}.")
        tell("Nothing was changed: --yes does it.")
