"""How far a pass over everything is: a bar in a terminal, elsewhere a plain line now and then."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pipeline.cli.printing import duration, errors, interactive, tell

SAY_EVERY_S = 5.0


class Passing:
    """Takes the share of the way that is done, and how many were seen; tells rate and time left."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._told_at = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if interactive():
            self._bar = Progress(
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=32),
                TaskProgressColumn(),
                TextColumn("{task.fields[seen]}"),
                TimeRemainingColumn(),
                console=errors(),
            )
            self._bar.start()
            self._bar.add_task(self._what, total=1.0, seen="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, fraction: float, seen: int) -> None:
        now = time.monotonic()
        passed_s = max(now - self._began, 0.001)
        told = f"{seen:,}, {seen / passed_s:,.0f}/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=fraction, seen=told)
        elif now - self._told_at > SAY_EVERY_S:
            self._told_at = now
            left_s = passed_s * (1 - fraction) / fraction if fraction else 0
            left = f", about {duration(left_s)} left" if 0 < fraction < 1 else ""
            tell(f"{self._what}: {fraction:.0%}, {told}{left}")
