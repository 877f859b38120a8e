"""What nobody needs in sight is put away, and brought back: prune, consolidate, restore.

Each looks at the record page by page and publishes what is to happen; the stages do it. Nothing is deleted.
"""

import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import AsJson, Data
from pipeline.cli.passing import Passing
from pipeline.cli.printing import on_one_line, show, show_json, tell
from pipeline.cli.reaching import Located, located, quiet, running
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.domain.duplicates import Candidate, Group
    from pipeline.domain.pruning import Rule, Worth
    from pipeline.domain.tiers import Tiers
    from pipeline.kafka.publishing import Publishing
    from pipeline.ports import Belonging, MemoryRecords
    from schemas.events import Lived

PAGE = 500
MOST_OF_A_USER = 200_000
"""Memories of one user whose texts are compared: some 40 MB."""
PATIENCE_S = 60.0
_DAY = timedelta(days=1)

OneUser = Annotated[
    str | None,
    typer.Option("--user", "-u", metavar="USER", help="Whose memories.", show_default=False),
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


@dataclass
class Tidied:
    """What was, or would be, put away or brought back."""

    batch: str
    keep: int
    looked_at: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    told: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    apart: int = 0
    """That say the same, too, but were told further apart in time than is merged."""
    apart_days: int = 0
    """Within so many days all of them were told."""

    def add(self, what: str, **told: Any) -> None:
        """Counts one, and keeps the first of them."""
        self.counts[what] += 1
        if len(self.told) < self.keep:
            self.told.append(told)


@dataclass(frozen=True)
class Tools:
    """What a command works with."""

    records: "MemoryRecords"
    publishing: "Publishing | None"
    """None for a dry run."""
    tiers: "Tiers"
    now: datetime

    async def publish(self, events: "Sequence[Lived]") -> None:
        """Publishes what is to happen, unless it is a dry run."""
        from schemas.topics import RECALLED

        if self.publishing is not None and events:
            await self.publishing.publish(RECALLED, events)


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

    whose = _whose(user, all_users=all_users)
    rule = Rule(below, days(unused_for, "--unused-for"))
    tidied = Tidied(_batch("prune"), limit)
    _run(data, tidied, whose, lambda tools: _prune(tools, tidied, whose, rule), yes=yes, json=json)


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

    The same words in the same order, of the same speaker, agent and application; case, punctuation and
    fillers may differ. The one that was used most stays, else the newest, and tells whom it stands for.

    \b
    [dim]$[/dim] hybrid-memory consolidate --user alice
    [dim]$[/dim] hybrid-memory consolidate --user alice --within 30d --yes
    """
    whose = _whose(user, all_users=all_users)
    near = days(within, "--within")
    tidied = Tidied(_batch("consolidate"), limit)
    _run(
        data,
        tidied,
        whose,
        lambda tools: _consolidate(tools, tidied, whose, near),
        yes=yes,
        json=json,
    )


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
    """
    whose = _whose(user, all_users=all_users)
    chosen = frozenset(memory_ids or ())
    if sum(map(bool, (chosen, batch, everything))) != 1:
        raise Refused("Say what to bring back: ids, --batch BATCH, or --all.")
    if chosen and whose is None:
        raise Refused("An id is one user's: give --user USER.")
    tidied = Tidied(_batch("restore"), limit)

    def wanted(told: "Belonging") -> bool:
        archived = told.told
        return archived is not None and (
            everything
            or told.memory_id in chosen
            or (batch is not None and archived.batch == batch)
        )

    _run(data, tidied, whose, lambda t: _restore(t, tidied, whose, wanted), yes=yes, json=json)
    if batch and not tidied.counts:
        tell(f"There is no such batch: nothing is archived that {on_one_line(batch)} put away.")


def days(given: str, option: str) -> timedelta:
    """`90d` or `90` as a time span. Raises Refused."""
    try:
        span = timedelta(days=float(given.removesuffix("d")))
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


def _batch(what: str) -> str:
    return f"{what}-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(4)}"


def _run(
    data: Any,
    tidied: Tidied,
    whose: str | None,
    work: "Callable[[Tools], Any]",
    *,
    yes: bool,
    json: bool,
) -> None:
    here = located(data)
    quiet()

    async def whole() -> None:
        async with _tools(here, yes=yes) as tools:
            await work(tools)
        if yes and tidied.counts:
            await _done(here)

    running(whole())
    if json:
        told = {"batch": tidied.batch, "done": yes, "looked_at": tidied.looked_at}
        apart = {"count": tidied.apart, "within_days": tidied.apart_days}
        more = {"further_apart": apart} if tidied.apart else {}
        show_json(told | {"counts": dict(tidied.counts), "first": tidied.told} | more)
        return
    _show(tidied, whose, yes=yes)


@asynccontextmanager
async def _tools(here: Located, *, yes: bool) -> "AsyncGenerator[Tools]":
    from pipeline import app
    from pipeline.kafka.publishing import publishing

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


async def _pages(
    tools: Tools, tidied: Tidied, whose: str | None, what: str
) -> "AsyncGenerator[Sequence[Belonging]]":
    """All memories, a page in memory at a time."""
    after: tuple[str, str] | None = None
    total = max(1, await tools.records.count(whose))
    with Passing(what) as passing:
        while page := await tools.records.belongings(whose, after, PAGE):
            after = (page[-1].user_id, page[-1].memory_id)
            tidied.looked_at += len(page)
            yield page
            passing(min(1.0, tidied.looked_at / total), tidied.looked_at)


async def _prune(tools: Tools, tidied: Tidied, whose: str | None, rule: "Rule") -> None:
    from pipeline.domain.pruning import may_go

    async for page in _pages(tools, tidied, whose, "prune"):
        going = [(each, worth) for each in page if may_go(worth := _worth(each, tools), rule)]
        await tools.publish(
            [
                _archived(each.user_id, each, batch=tidied.batch, reason="pruned")
                for each, _ in going
            ]
        )
        for each, worth in going:
            tidied.add(
                "archived",
                user=each.user_id,
                memory_id=each.memory_id,
                text=on_one_line(each.text, 80),
                importance=round(worth.importance, 2),
                strength=round(worth.strength, 2),
                unused_days=worth.unused // _DAY,
            )


def _worth(each: "Belonging", tools: Tools) -> "Worth":
    from pipeline.domain.pruning import worth

    return worth(
        each.told,
        importance=each.importance,
        version=each.version,
        published_at=each.published_at,
        now=tools.now,
        tiers=tools.tiers,
    )


async def _consolidate(tools: Tools, tidied: Tidied, whose: str | None, within: timedelta) -> None:
    """User by user: the record tells them in this order."""
    user_id: str | None = None
    mine: dict[str, tuple[Candidate, str]] = {}
    async for page in _pages(tools, tidied, whose, "consolidate"):
        for each in page:
            if each.user_id != user_id:
                await _merge(tools, tidied, user_id, mine, within)
                user_id, mine = each.user_id, {}
            if not (worth := _worth(each, tools)).archived:
                mine[each.memory_id] = (_candidate(each, worth), on_one_line(each.text, 80))
            if len(mine) > MOST_OF_A_USER:
                raise Refused(f"{each.user_id} has more than {MOST_OF_A_USER:,} memories.")
    await _merge(tools, tidied, user_id, mine, within)


def _candidate(each: "Belonging", worth: "Worth") -> "Candidate":
    from pipeline.domain.duplicates import Candidate, says

    return Candidate(
        each.memory_id,
        says(each.text, each.speaker, each.agent_id, each.app_id),
        each.occurred_at,
        worth.strength,
        each.version,
        len(each.told.consolidated) if each.told else 0,
    )


async def _merge(
    tools: Tools,
    tidied: Tidied,
    user_id: str | None,
    mine: "dict[str, tuple[Candidate, str]]",
    within: timedelta,
) -> None:
    from pipeline.domain.duplicates import apart, groups

    if user_id is None:
        return
    candidates = [candidate for candidate, _ in mine.values()]
    near, ever = groups(candidates, within=within), groups(candidates, within=timedelta.max)
    more, furthest = apart(near, ever)
    tidied.apart += more
    tidied.apart_days = max(tidied.apart_days, -(-furthest // _DAY))
    for group in near:
        await tools.publish(_merged(user_id, group, tidied.batch))
        for each in group.others:
            tidied.add(
                "archived",
                user=user_id,
                memory_id=each.memory_id,
                text=mine[each.memory_id][1],
                into=group.survivor.memory_id,
                into_text=mine[group.survivor.memory_id][1],
            )


def _merged(user_id: str, group: "Group", batch: str) -> "Sequence[Lived]":
    from schemas.events import MemoryConsolidated

    survivor = group.survivor.memory_id
    return [
        *(
            _archived(user_id, each, batch=batch, reason="consolidated", into=survivor)
            for each in group.others
        ),
        MemoryConsolidated(
            **_event(user_id, survivor, 0),
            merged=tuple(each.memory_id for each in group.others),
        ),
    ]


async def _restore(
    tools: Tools, tidied: Tidied, whose: str | None, wanted: "Callable[[Belonging], bool]"
) -> None:
    from schemas.events import MemoryConsolidated, MemoryRestored

    async for page in _pages(tools, tidied, whose, "restore"):
        events: list[Any] = []
        for each in filter(wanted, page):
            # Later than the word that archived it, which a clock that is ahead may have said.
            heard = max(each.told.version if each.told else 0, each.version + 1)
            if each.told and each.told.into:
                # Also where it was said anew, and is in sight by that.
                fields = _event(each.user_id, each.told.into, heard)
                events.append(MemoryConsolidated(**fields, parted=(each.memory_id,)))
            if named := await _named_in_vain(tools, each):
                fields = _event(each.user_id, each.memory_id, heard)
                events.append(MemoryConsolidated(**fields, parted=named))
            if not _worth(each, tools).archived:
                continue
            events.append(MemoryRestored(**_event(each.user_id, each.memory_id, heard)))
            tidied.add(
                "restored",
                user=each.user_id,
                memory_id=each.memory_id,
                text=on_one_line(each.text, 80),
            )
        await tools.publish(events)


async def _named_in_vain(tools: Tools, survivor: "Belonging") -> tuple[str, ...]:
    """Whom the memory is said to stand for, though they are in sight, forgotten, or put away otherwise."""
    named = survivor.told.consolidated if survivor.told else ()
    there = [(id_, await tools.records.get(survivor.user_id, id_)) for id_ in named]
    return tuple(
        id_ for id_, memory in there if memory is None or memory.into != survivor.memory_id
    )


def _archived(
    user_id: str, each: "Belonging | Candidate", *, batch: str, reason: Any, into: str | None = None
) -> "Lived":
    from schemas.events import MemoryArchived

    fields = _event(user_id, each.memory_id, each.version)
    return MemoryArchived(**fields, of_version=each.version, reason=reason, batch=batch, into=into)


def _event(user_id: str, memory_id: str, after: int) -> dict[str, Any]:
    """What every event carries; later than `after`, should the publishers' clocks be ahead."""
    from uuid import uuid4

    now = time.time_ns() // 1_000
    return {
        "event_id": uuid4(),
        "user_id": user_id,
        "memory_id": memory_id,
        "version": max(now, after + 1),
        "published_at": datetime.now(UTC),
    }


def _show(tidied: Tidied, whose: str | None, *, yes: bool) -> None:
    of = "everybody" if whose is None else whose
    for each in tidied.told:
        about = [
            f"{name} {on_one_line(str(value))}"
            for name, value in each.items()
            if name not in ("text", "memory_id", "into_text")
        ]
        if "into_text" in each:
            about[-1] += f"  {each['into_text']}"
        show(f"{on_one_line(each['memory_id'])}  {each['text']}")
        show("  " + ", ".join(about), style="dim")
    count = tidied.counts.total()
    if count > len(tidied.told):
        show(f"... and {count - len(tidied.told):,} more.", style="dim")
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
    if tidied.apart:
        tell(
            f"{tidied.apart:,} more say the same, told further apart: "
            f"--within {tidied.apart_days}d takes them, too."
        )
