"""A stand-in for Mem0's platform, for trying things out without an account."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.printing import show, tell
from pipeline.cli.reaching import quiet, running
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.sources.mem0_sim.server import Mem0Sim
    from producers.client import NewMemory


def register(app: typer.Typer) -> None:
    """Adds `mem0-sim`."""
    app.command("mem0-sim", rich_help_panel="Stages")(mem0_sim)


def mem0_sim(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8888,
    seed: Annotated[int, typer.Option(help="The same seed: the same ids and faults.")] = 0,
    faults: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Of requests that go wrong: 429, 503, 500, no JSON."
        ),
    ] = 0.0,
    replica_lag: Annotated[
        float, typer.Option(metavar="S", min=0, help="How far the slowest replica is behind.")
    ] = 0.0,
    oddities: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Of new memories without a time, or with an odd one.",
        ),
    ] = 0.0,
    memories: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help='What it holds at first: {"user": "alice", "text": "..."}, one a line.',
            show_default=False,
        ),
    ] = None,
) -> None:
    """Answer as Mem0's platform does, from memory, until Ctrl-C.

    Any API key is right. What is added is kept word for word, and gone when this ends.

    \b
    [dim]$[/dim] hybrid-memory mem0-sim --port 8888
    [dim]$[/dim] MEM0_API_KEY=any MEM0_HOST=http://localhost:8888 hybrid-memory run mem0
    """
    from pipeline.sources.mem0_sim.server import stand_in

    quiet()
    sim = stand_in(seed=seed, faults=faults, replica_lag_s=replica_lag, oddities=oddities)
    if memories is not None:
        _load(sim, memories)
    running(_serve(sim, port))


def _load(sim: "Mem0Sim", file: Path) -> None:
    from pipeline.cli.rows import memory_of

    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror or error}.") from error
    for number, line in enumerate(lines, 1):
        try:
            row = memory_of(line)
        except Refused as error:
            raise Refused(f"{file}, line {number}: {error}") from error
        hold(sim, row)
    tell(f"Holds {len(sim.memories.rows):,} memories.", style="dim")


def hold(sim: "Mem0Sim", memory: "NewMemory") -> str:
    """Has the stand-in hold a memory; its id there."""
    scope = memory.model_dump(include={"user_id", "agent_id", "app_id", "run_id"})
    said = memory.occurred_at.timestamp() if memory.occurred_at else None
    who = {"speaker": memory.speaker} if memory.speaker else {}
    given = {"metadata": {**memory.metadata, **who}, "timestamp": said}
    return sim.memories.hold(memory.text, scope, given)["id"]


async def _serve(sim: "Mem0Sim", port: int) -> None:
    from pipeline.sources.mem0_sim.server import serving

    try:
        async with serving(sim, port=port) as address:
            show(f"Mem0's stand-in answers at {address}")
            await asyncio.Event().wait()
    except OSError as error:
        raise Refused(f"--port {port} cannot be had: {error.strerror or error}.") from error
