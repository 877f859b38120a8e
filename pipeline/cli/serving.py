"""Whether the stages of a stack serve yet: a process that runs may still load its model."""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.starting import Starting
from pipeline.errors import Halted, Unavailable

if TYPE_CHECKING:
    from pipeline.embedded import Stack
    from pipeline.settings import Settings

STAGES_TIMEOUT_S = 600.0
"""How long the stages may take until they serve: the first time a model is measured."""

GONE_S = 15.0
"""A stage that has no process for so long will not come: one that died is started again sooner."""
WONDER_AFTER_S = 10.0
"""How long a start may take before it is told what a stage has trouble with: a neighbour may come up meanwhile."""
POLL_INTERVAL_S = 0.3


async def until_serving(
    stack: "Stack",
    settings: "Settings",
    processes: Iterable[str],
    starting: Starting,
) -> None:
    """Returns once every stage has joined its consumer group.

    Raises Halted where one cannot run as configured, Unavailable where one does not run, or does not
    join in a long time.
    """
    from pipeline.kafka.lag import group_members
    from pipeline.kafka.records import group_of

    kafka = settings.kafka(stack.kafka_bootstrap_servers)
    prefix = settings.topic_prefix
    waiting = {name: [group_of(prefix, s) for s in name.split("+")] for name in processes}
    began = time.monotonic()
    ran_at = dict.fromkeys(waiting, began)
    while waiting:
        members = await group_members(kafka, [group for all_ in waiting.values() for group in all_])
        for name in [n for n, groups in waiting.items() if all(members.get(g) for g in groups)]:
            del waiting[name]
            starting.serves(name)
        _still_coming(stack.data, waiting, ran_at, began)
        since, troubled = stack.started_at, time.monotonic() - began > WONDER_AFTER_S
        starting.waits(
            {name: last_said(_log(stack.data, name), since, troubled=troubled) for name in waiting}
        )
        await asyncio.sleep(POLL_INTERVAL_S if waiting else 0)


def _log(data: Path, name: str) -> Path:
    return data / "logs" / f"{name}.log"


def last_said(log: Path, since: float, *, troubled: bool = False) -> str:
    """What a stage is at, in its own words: the last line of its log without time and level.

    Empty where that was before `since` (epoch seconds), in another life of it. What it has trouble with is
    the reason that it gives, and told to whoever asks for it.
    """
    from pipeline.embedded.logged import logged
    from pipeline.embedded.process import tail

    said = logged(tail(log, lines=1))
    if said is None or said.at.timestamp() < since:
        return ""
    if said.level == "info":
        return said.event
    return said.reason if troubled else ""


def _still_coming(
    data: Path, waiting: Iterable[str], ran_at: dict[str, float], began: float
) -> None:
    """Raises Halted or Unavailable when there is no more hope for one that is waited for."""
    from pipeline.embedded import discover

    now = time.monotonic()
    stack = discover(data)
    for name in waiting:
        part = stack.parts.get(name) if stack else None
        if part is not None and part.halted:
            where = f"Its log is {_log(data, name)}"
            raise Halted(f"{name} cannot run as configured: {part.halted}\n{where}")
        if part is not None and part.pid is not None:
            ran_at[name] = now
        if now - ran_at[name] > GONE_S or now - began > STAGES_TIMEOUT_S:
            state = "runs, but does not serve" if ran_at[name] == now else "does not run"
            raise Unavailable(f"{name} {state}. {_end_of(_log(data, name))}")


def _end_of(log: Path) -> str:
    from pipeline.embedded.process import tail

    return f"The end of {log}:\n{tail(log, lines=3)}"
