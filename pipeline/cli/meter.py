"""How far a load is: two bars in a terminal, elsewhere a plain line now and then."""

import time
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from pipeline.cli.printing import duration, errors, interactive, tell

SAY_EVERY_S = 5.0


class Meter:
    """Counts what was accepted and what was stored. `total` is None where nobody knows it."""

    def __init__(self, total: int | None, *, done: int = 0, stored: bool = True) -> None:
        self._total = total
        self._done_before = done
        self._accepted = done
        self._left_out = 0
        self._stored = 0
        self._shows_stored = stored
        self._began = time.monotonic()
        self._told_at = self._began
        self._bars: Progress | None = None

    def __enter__(self) -> Self:
        if interactive() and self._total != self._done_before:
            self._bars = Progress(
                TextColumn("{task.description:<9}"),
                BarColumn(bar_width=32),
                MofNCompleteColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=errors(),
            )
            self._bars.start()
            total = self._total
            self._bars.add_task("accepted", total=total, completed=self._done_before, rate="")
            if self._shows_stored:
                left = None if total is None else total - self._done_before
                self._bars.add_task("stored", total=left, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    @property
    def _expected(self) -> int | None:
        """All that can be accepted yet: what was rejected is not waited for."""
        return None if self._total is None else self._total - self._left_out

    def accepted(self, rows: int, *, left_out: int = 0) -> None:
        """So many rows were read in all; `left_out` of them, in this run, brought no memory."""
        self._accepted, self._left_out = rows - left_out, left_out
        if self._bars is not None and self._expected is not None:
            for task, before in zip(self._bars.task_ids, (0, self._done_before), strict=False):
                self._bars.update(task, total=self._expected - before)
        self._show(0, self._accepted, self._accepted - self._done_before)

    def stored(self, memories: int) -> None:
        """So many are stored."""
        self._stored = memories
        self._show(1, memories, memories)

    def _show(self, bar: int, count: int, of_this_run: int) -> None:
        rate = of_this_run / max(time.monotonic() - self._began, 0.001)
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[bar], completed=count, rate=f"{rate:,.0f}/s")
        elif time.monotonic() - self._told_at > SAY_EVERY_S:
            self._told_at = time.monotonic()
            self._tell(rate)

    def _tell(self, rate: float) -> None:
        total = self._expected
        of = "" if total is None else f" of {total:,}"
        stored = f", {self._stored:,} stored" if self._shows_stored else ""
        left = ""
        done = self._stored + self._done_before if self._shows_stored else self._accepted
        if total is not None and rate > 0 and done < total:
            left = f", about {duration((total - done) / rate)} left"
        tell(f"{self._accepted:,}{of} accepted{stored}, {rate:,.0f}/s{left}")
