"""How the stream is doing: parts up or down, lag, counts, dead letters."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.checks import Part, check_parts, late_by
from pipeline.cli.mem0_trouble import Trouble, log_of, poller_of, trouble
from pipeline.cli.options import AsJson, Data
from pipeline.cli.printing import duration, output, show, show_json
from pipeline.cli.reaching import client_of, quiet, read_settings, running
from pipeline.cli.restarts import HALTED, RESTARTING, restarted, why_halted
from pipeline.errors import PipelineError
from schemas.topics import OPERATOR_ASKED

if TYPE_CHECKING:
    from pipeline.contract.flows import Flow
    from pipeline.embedded.state import Stack
    from pipeline.kafka.connection import KafkaConnection
    from schemas.search import CountsAnswered

WATCH_EVERY_S = 2.0
PATIENCE_S = 15.0
"""On two busy cores a healthy stack takes most of ten seconds."""
OPERATOR_DESK = "operator_desk"
UNKNOWN = 75
"""The exit code where nothing is known to be down, and something did not answer: EX_TEMPFAIL."""
RESTART_PATIENCE_S = 10.0
"""How long to ask again where something is just being started again."""
ASK_AGAIN_S = 0.5
LATE_S = 10.0
"""A look at Mem0 that is so late on a busy machine is not worth a word."""
INTERVALS_MISSED = 3
"""After so many intervals without a look at Mem0 the poller is said to be overdue."""


@dataclass(frozen=True)
class StageState:
    """One stage: what it has not read yet, and how many processes run it. None: nobody knows."""

    stage: str
    reads: str
    lag: int | None
    members: int | None
    process: str = ""
    """Whether the stack is starting it again, or just did, or it halted; "" where there is nothing to say."""
    halted: str = ""
    """Why it waits for a person."""


_HEAR_AGAIN = {"embedder", "record_writer", "vector_writer"}
"""Stages that read what the contextualizer sends once more."""
_DESKS = {"query", OPERATOR_DESK}


@dataclass(frozen=True)
class Status:
    """Everything at one moment."""

    parts: Sequence[Part]
    stages: Sequence[StageState]
    record: int | None
    """Memories in Postgres; None where the operator desk does not say."""
    index: int | None
    dead_letters: int | None
    """That nobody has settled yet; None where they could not be counted in time."""
    mem0: dict[str, Any] | None = None
    """The last cycle of the Mem0 poller; None where there was none."""
    caches: Sequence[dict[str, Any]] = ()
    """What each tier of the desk's caches had and had not; of the process that answered."""
    cache_bytes: int = 0
    poller: Literal["up", "down"] | None = None
    """The Mem0 poller of the stack that runs here; None where it has none."""
    poller_log: str = ""
    """Where it says why it is down."""
    poller_halted: str = ""
    """Why it waits for a person."""
    mem0_trouble: Trouble | None = None
    """Why its last look at Mem0 failed, where it did."""
    mem0_overdue: bool = False
    """Whether nobody has looked at Mem0 for so long that the poller may have died."""
    mem0_late_s: float = 0.0
    """For how long the next look at Mem0 is due."""

    @property
    def ok(self) -> bool:
        """Whether every part is up, every stage and the poller run, and the operator desk answers."""
        return (
            not self.down
            and not any(part.late for part in self.parts)
            and all(stage.members for stage in self.stages)
            and self.record is not None
        )

    @property
    def down(self) -> bool:
        """Whether anything is known to be down: what did not answer in time may just be busy."""
        return (
            any(part.up is False for part in self.parts)
            or any(
                stage.members == 0 or stage.process in {RESTARTING, HALTED} for stage in self.stages
            )
            or self.poller == "down"
        )


def register(app: typer.Typer) -> None:
    """Adds `status`."""
    app.command(rich_help_panel="Operating")(status)


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")
    ] = False,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Show which parts are up, how far each stage is behind, and what the stores hold.

    \b
    [dim]$[/dim] hybrid-memory status
    [dim]$[/dim] hybrid-memory status --json | jq '.stages[] | select(.lag > 1000)'

    Lag counts events that a stage has not committed. They may be of memories that are found already: these
    come once more when their conversation goes on. Questions are committed every 5 s, so some that count
    are answered.

    Ends with 1 if anything is down; with 75 if nothing is known to be, but something did not answer in
    time, as on a busy machine.
    """
    quiet()
    if watch:
        running(_watch(data, json=json))
    seen = running(look(data))
    if json:
        show_json(as_json(seen))
    else:
        show(picture(seen))
    if not seen.ok:
        raise typer.Exit(1 if seen.down else UNKNOWN)


async def _watch(data: Path | None, *, json: bool) -> None:
    with Live(console=output(), auto_refresh=False, screen=False) as live:
        while True:
            seen = await look(data)
            if json:
                show_json(as_json(seen))
            else:
                live.update(picture(seen), refresh=True)
            await asyncio.sleep(WATCH_EVERY_S)


async def look(data: Path | None) -> Status:
    """Asks everybody; again, for a while, where something that nobody knows is being restarted."""
    from pipeline.embedded.state import discover

    began = time.monotonic()
    while True:
        stack = discover(data)
        seen = with_restarts(await _look(stack), stack)
        known = all(stage.lag is not None for stage in seen.stages)
        restarts = any(part.detail.startswith("restart") for part in seen.parts)
        if known or not restarts or time.monotonic() - began > RESTART_PATIENCE_S:
            return seen
        await asyncio.sleep(ASK_AGAIN_S)


def with_restarts(seen: Status, stack: "Stack | None") -> Status:
    """The same with what is known of processes that were started again."""
    parts = [_told(part, restarted(stack, part.name.lower())) for part in seen.parts]
    stages = [
        replace(stage, process=restarted(stack, stage.stage), halted=why_halted(stack, stage.stage))
        for stage in seen.stages
    ]
    return replace(seen, parts=parts, stages=stages)


def _told(part: Part, news: str) -> Part:
    return replace(part, detail=news) if news else part


async def _look(stack: "Stack | None") -> Status:
    settings = read_settings()
    prefix, interval_s = settings.topic_prefix, settings.sync_interval_seconds
    address = settings.kafka_bootstrap_servers or (stack.kafka_bootstrap_servers if stack else None)
    kafka = settings.kafka(address) if address else None
    parts, (stages, dead, counts), mem0 = await asyncio.gather(
        check_parts(settings, stack), _stream(kafka, prefix), _mem0(kafka, prefix)
    )
    return Status(
        parts=parts,
        stages=stages,
        record=counts.record if counts else None,
        index=counts.index if counts else None,
        dead_letters=dead,
        mem0=mem0,
        caches=[each.model_dump() for each in counts.caches] if counts else (),
        cache_bytes=counts.cache_bytes if counts else 0,
        poller=_poller(stack),
        poller_log=str(log_of(stack)) if stack else "",
        poller_halted=why_halted(stack, "mem0"),
        mem0_trouble=trouble(stack),
        mem0_overdue=mem0 is not None and is_overdue(mem0, datetime.now(UTC), interval_s),
        mem0_late_s=late_s(mem0, datetime.now(UTC), interval_s) if mem0 else 0.0,
    )


def is_overdue(ended: Mapping[str, Any], now: datetime, interval_s: float) -> bool:
    """Whether several looks at Mem0 should have ended since this one, which tells how long one takes."""
    ago = now - datetime.fromisoformat(ended["started_at"])
    return ago.total_seconds() > INTERVALS_MISSED * (interval_s + ended["took_s"])


def late_s(ended: Mapping[str, Any], now: datetime, interval_s: float) -> float:
    """For how long the look after this one should have ended."""
    ago = now - datetime.fromisoformat(ended["started_at"])
    return max(0.0, ago.total_seconds() - interval_s - 2 * ended["took_s"])


def _poller(stack: "Stack | None") -> Literal["up", "down"] | None:
    part = poller_of(stack)
    if part is None:
        return None
    return "down" if part.pid is None else "up"


async def _mem0(kafka: "KafkaConnection | None", prefix: str) -> dict[str, Any] | None:
    if kafka is None:
        return None
    from pipeline.sources.mem0_ledger import last_cycle

    try:
        async with asyncio.timeout(PATIENCE_S):
            ended = await last_cycle(kafka, prefix)
    except (PipelineError, TimeoutError):
        return None
    return None if ended is None else ended.model_dump(mode="json", exclude={"type"})


async def _stream(
    kafka: "KafkaConnection | None", prefix: str
) -> "tuple[list[StageState], int | None, CountsAnswered | None]":
    from pipeline.contract.flows import flows

    told = flows()
    unknown = [StageState(flow.stage, flow.reads.under(prefix), None, None) for flow in told]
    if kafka is None:
        return unknown, None, None
    try:
        async with asyncio.timeout(PATIENCE_S):
            stages = await _lags(kafka, prefix, told)
    except (PipelineError, TimeoutError):
        return unknown, None, None
    # Letters may be many and large: what takes long to count hides nothing else.
    answers = any(stage.members for stage in stages if stage.reads == OPERATOR_ASKED.under(prefix))
    dead, counts = await asyncio.gather(
        _dead_letters(kafka, prefix), _counts(kafka, prefix) if answers else _none()
    )
    return stages, dead, counts


async def _none() -> None:
    """Nobody to ask."""


async def _lags(kafka: "KafkaConnection", prefix: str, told: "Sequence[Flow]") -> list[StageState]:
    from pipeline.kafka.lag import group_states
    from pipeline.kafka.records import group_of

    groups = {group_of(prefix, flow.stage): flow.reads.under(prefix) for flow in told}
    states = await group_states(kafka, groups)
    found: list[StageState] = []
    for flow in told:
        state = states[group_of(prefix, flow.stage)]
        lag, members = (state.lag, state.members) if state else (0, 0)
        found.append(StageState(flow.stage, flow.reads.under(prefix), lag, members))
    return found


async def _dead_letters(kafka: "KafkaConnection", prefix: str) -> int | None:
    from pipeline.kafka.redriving import count_open

    try:
        async with asyncio.timeout(PATIENCE_S):
            return await count_open(kafka, prefix)
    except (PipelineError, TimeoutError):
        return None


async def _counts(kafka: "KafkaConnection", prefix: str) -> "CountsAnswered | None":
    try:
        async with asyncio.timeout(PATIENCE_S), client_of(kafka, prefix) as client:
            return await client.counts(timeout_s=PATIENCE_S - 1)
    except (PipelineError, TimeoutError):
        return None


def as_json(seen: Status) -> dict[str, Any]:
    """One object for programs."""
    return {"ok": seen.ok, "down": seen.down, **asdict(seen)}


def picture(seen: Status) -> Group:
    """The same for people."""
    return Group(_parts(seen.parts), Text(), _stages(seen.stages), Text(), *_sums(seen))


def _parts(parts: Sequence[Part]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("part", "", "address"):
        table.add_column(heading, overflow="fold")
    for part in parts:
        # In one column, it leaves the address the width that a terminal has.
        where = Text("  ").join(
            Text(told, style) for told, style in ((part.address, ""), (part.detail, "dim")) if told
        )
        table.add_row(part.name, _up(part.up), where)
    return table


def _up(up: bool | None) -> Text:
    if up is None:
        return Text("?", "yellow")
    return Text("up", "green") if up else Text("down", "red")


def _stages(stages: Sequence[StageState]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stage", overflow="fold")
    table.add_column("reads", overflow="fold")
    table.add_column("lag", justify="right")
    table.add_column("processes", justify="right")
    table.add_column("")
    for stage in stages:
        lag = "?" if stage.lag is None else f"{stage.lag:,}"
        members = Text("?") if stage.members is None else Text(str(stage.members))
        if stage.members == 0:
            members.stylize("red")
        colour = "red" if stage.halted else "yellow"
        table.add_row(stage.stage, stage.reads, lag, members, Text(stage.process, colour))
    return table


def _sums(seen: Status) -> list[Text]:
    if seen.record is None or seen.index is None:
        stored = Text(f"Memories: unknown, {_why_uncounted(seen)}", "yellow")
    else:
        agree = "" if seen.record == seen.index else " (they differ while a stage is behind)"
        stored = Text(f"Memories: {seen.record:,} in Postgres, {seen.index:,} in the index{agree}.")
    sums = [*_halted(seen.stages), stored, *_what_lags(seen)]
    if seen.dead_letters is not None:
        letters = f"Dead letters: {seen.dead_letters:,}."
        if seen.dead_letters:
            letters += " `hybrid-memory dead list` shows them."
        sums.append(Text(letters, "yellow" if seen.dead_letters else ""))
    elif any(stage.lag is not None for stage in seen.stages):
        untold = "Dead letters: not counted in time. `hybrid-memory dead list` shows them."
        sums.append(Text(untold, "yellow"))
    return [*sums, *_hit_rates(seen), *_mem0_lines(seen)]


def _what_lags(seen: Status) -> list[Text]:
    """What a lag may be made of though both stores hold the same, and nobody waits for an answer."""
    behind = {stage.stage for stage in seen.stages if stage.lag}
    told: list[str] = []
    if behind & _HEAR_AGAIN and seen.record is not None and seen.record == seen.index:
        told.append(
            "What is behind may be memories that are found already: they come once more when their "
            "conversation goes on."
        )
    if behind & _DESKS:
        told.append(
            "Of the questions that count as lag, some are answered: that is noted every 5 s."
        )
    return [Text(line, "dim") for line in told]


def _why_uncounted(seen: Status) -> str:
    """Why the operator desk, or Kafka before it, said nothing."""
    if any(part.name == "Kafka" and part.up is False for part in seen.parts):
        return "Kafka is down."
    if any(stage.lag is None for stage in seen.stages):
        return f"as how far the stages are: Kafka {late_by(PATIENCE_S)} Ask again."
    if any(stage.stage == OPERATOR_DESK and stage.members == 0 for stage in seen.stages):
        return "no operator desk runs."
    return f"the operator desk {late_by(PATIENCE_S)} Ask again."


def _halted(stages: Sequence[StageState]) -> list[Text]:
    """Why, once for all stages of a process."""
    reasons: dict[str, list[str]] = {}
    for stage in stages:
        if stage.halted:
            reasons.setdefault(stage.halted, []).append(stage.stage)
    return [
        Text.assemble((f"{', '.join(names)} halted: ", "bold red"), reason)
        for reason, names in reasons.items()
    ]


def _mem0_lines(seen: Status) -> list[Text]:
    lines = [_cycle(seen)] if seen.mem0 else []
    if seen.poller_halted:
        lines.append(Text.assemble(("Mem0: the poller halted: ", "bold red"), seen.poller_halted))
    elif seen.poller == "down":
        lines.append(Text(f"Mem0: the poller is down; {seen.poller_log} says why.", "red"))
    elif seen.mem0_trouble:
        lines.append(_failed(seen.mem0_trouble))
    elif seen.mem0_overdue:
        lines.append(
            Text(
                "Mem0: overdue. By SYNC_INTERVAL_SECONDS there should have been a look since: does the "
                "poller still run, and what does its log say?",
                "yellow",
            )
        )
    elif seen.poller == "up" and not seen.mem0:
        lines.append(Text("Mem0: the poller runs, and no look at Mem0 has ended yet.", "yellow"))
    return lines


_TIERS = {0: "this desk's memory", 2: "Redis"}


def _hit_rates(seen: Status) -> list[Text]:
    """How often what was asked before was of use; nothing where nobody has asked yet."""
    told = [
        f"{each['kind']} {_rate(each)} in {_TIERS.get(each['tier'], each['tier'])}"
        for each in seen.caches
        if each["hits"] + each["misses"]
    ]
    held = f"{seen.cache_bytes / 1024**2:.1f} MiB held"
    return [Text(f"Found again: {', '.join(told)}; {held}.")] if told else []


def _rate(each: Mapping[str, Any]) -> str:
    return f"{each['hits'] / (each['hits'] + each['misses']):.0%}"


def _failed(trouble: Trouble) -> Text:
    """That the poller tries in vain, since when and why."""
    ago = datetime.now(UTC) - trouble.at
    return Text(
        f"Mem0: the poller runs, and its last try failed {duration(ago.total_seconds())} ago: "
        f"{trouble.reason}. It tries again.",
        "yellow",
    )


_POLLERS = {
    "up": " The poller runs.",
    "down": "",
    None: " No stack here runs its poller.",
}


def _cycle(seen: Status) -> Text:
    """The last look at Mem0: when it was, what it found, and whether there will be another one."""
    ended = seen.mem0 or {}
    ago = datetime.now(UTC) - datetime.fromisoformat(ended["started_at"])
    late = f", {duration(seen.mem0_late_s)} late" if seen.mem0_late_s > LATE_S else ""
    found = ", ".join(
        f"{ended[kind]:,} {kind}" for kind in ("added", "updated", "deleted", "errors")
    )
    line = (
        f"Mem0: {ended['memories']:,} memories of {ended['users']:,} users, last looked at "
        f"{duration(ago.total_seconds())} ago{late} (cycle {ended['cycle']:,}): {found}."
    )
    if not seen.mem0_trouble:
        line += _POLLERS[seen.poller]
    return Text(line, "yellow" if ended["errors"] or late else "")
