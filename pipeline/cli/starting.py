"""A stack that comes up, as people watch it: a line for each part, changing in a terminal.

Elsewhere a plain line for each change, and for long work now and then.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from pipeline.cli.printing import duration, errors, interactive, on_one_line, tell

if TYPE_CHECKING:
    from pipeline.embedded import Progress

SAY_EVERY_S = 5.0
"""How often something is told where no line can change."""
SAY_AGAIN_EVERY_S = 30.0
MOST_CHARS = 300
"""Of what went wrong, in the table; its log has the rest."""
_NAME_WIDTH = 14
"""Of the longest name, so that no column moves when it comes."""
_PHASE_WIDTH = 9
_MARKS = {
    "ready": ("✓", "green"),
    "running": ("✓", "green"),
    "refused": ("✗", "red"),
    "died": ("✗", "yellow"),
}


@dataclass
class _Line:
    phase: str = "waiting"
    detail: str = ""
    began: float = field(default_factory=time.monotonic)
    has_served: bool = False
    """Or runs, where it is a stage."""
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def state(self) -> RenderableType:
        """The mark and the phase."""
        mark, style = _MARKS.get(self.phase, ("", ""))
        if mark:
            return Text(f"{mark} {self.phase}", style)
        self.spinner.text = self.phase
        return self.spinner

    def said(self) -> Text:
        """The detail, on one line where nothing is wrong."""
        style = _style(self.phase)
        if style is None:
            return Text(on_one_line(self.detail), "dim", no_wrap=True, overflow="ellipsis")
        return Text(on_one_line(self.detail, MOST_CHARS), style)


class Starting:
    """Takes the progress of each part. A stage is ready once it serves, not once its process runs."""

    def __init__(self) -> None:
        self.stages: frozenset[str] = frozenset()
        """The processes that run stages, as soon as they are known."""
        self.sources: frozenset[str] = frozenset()
        """Those that run none, and read elsewhere."""
        self._lines: dict[str, _Line] = {}
        self._live: Live | None = None
        self._news = ""
        self._finished = False
        self._died: set[str] = set()
        """What died since, and does not run again yet."""
        self.is_stopping = False
        """Whether all that was started is asked to end."""
        self._began = self._told_at = time.monotonic()

    def __enter__(self) -> Self:
        if interactive():
            self._live = Live(console=errors(), get_renderable=self._table, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.finish()

    def __call__(self, progress: "Progress") -> None:
        running = progress.phase == "running"
        if running and progress.part in self.sources:
            # It has no group to join: nobody can say when it serves.
            self._change(progress.part, "running", progress.detail)
            return
        if running and progress.part in self.stages and not self._finished:
            self._change(progress.part, "loading", "")
            return
        self._change(progress.part, progress.phase, progress.detail)

    def serves(self, stage: str) -> None:
        """The stage has joined its group."""
        line = self._lines.get(stage) or _Line(began=self._began)
        self._change(stage, "ready", f"in {duration(time.monotonic() - line.began)}")

    def waits(self, stages: Mapping[str, str]) -> None:
        """These do not serve yet, and what each said last: told where no line moves."""
        if self.is_stopping:
            return
        for stage, said in stages.items():
            line = self._lines.setdefault(stage, _Line("loading", began=self._began))
            if said and line.phase == "loading":
                line.detail = said
        news = _each_once(stages)
        silent = SAY_EVERY_S if news != self._news else SAY_AGAIN_EVERY_S
        if news and self._live is None and time.monotonic() - self._told_at > silent:
            self._told_at, self._news = time.monotonic(), news
            tell(f"still starting: {news}")

    def _long_silent(self) -> bool:
        return time.monotonic() - self._told_at > SAY_EVERY_S

    def finish(self) -> None:
        """The last picture stays; from now on only what goes wrong is told, in lines of its own."""
        self._finished = True
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _change(self, part: str, phase: str, detail: str) -> None:
        if phase in ("stopping", "stopped"):
            self._stop()
            return
        if self._finished:
            self._tell_news(part, phase, detail)
            return
        line = self._lines.setdefault(part, _Line())
        if phase == "starting":
            line.began = time.monotonic()
        line.phase, line.detail = phase, detail
        line.has_served = line.has_served or phase in ("ready", "loading")
        if self._live is None and (phase in _MARKS or self._long_silent()):
            self._told_at = time.monotonic()
            for name in _names(part) if phase == "ready" else [part]:
                # What does not start at all ends this with an error, which has the rest.
                shown = detail if line.has_served else detail.partition("\n")[0]
                tell(_in_columns(name, phase, shown), style=_style(phase))

    def _tell_news(self, part: str, phase: str, detail: str) -> None:
        if phase in ("died", "refused"):
            self._died.add(part)
            tell(f"{part} {phase}: {detail}", style=_style(phase))
        elif phase in ("ready", "running") and part in self._died:
            self._died.remove(part)
            tell(f"{part} {'is ready' if phase == 'ready' else 'runs'} again: {detail}")

    def _stop(self) -> None:
        self.finish()
        if not self.is_stopping:
            self.is_stopping = True
            stages = "each stage finishes its batch, then the parts end"
            what = stages if self.stages else "the parts that were started end"
            tell(f"Stopping: {what}.", style="dim")

    def _table(self) -> Table:
        table = Table.grid(
            Column(min_width=_NAME_WIDTH, no_wrap=True),
            Column(min_width=_PHASE_WIDTH + 2, no_wrap=True),
            Column(),
            padding=(0, 2, 0, 0),
        )
        for part, line in self._lines.items():
            for name in _names(part):
                table.add_row(Text(name), line.state(), line.said())
        return table


def _names(part: str) -> list[str]:
    """The stages of a process that runs several; a row each."""
    return part.split("+")


def _each_once(said: Mapping[str, str]) -> str:
    """Who says what: those who say the same stand together."""
    names: dict[str, list[str]] = {}
    for name, words in said.items():
        names.setdefault(words, []).append(name)
    told = (
        f"{', '.join(all_)} ({words.rstrip('.')})" if words else ", ".join(all_)
        for words, all_ in names.items()
    )
    return "; ".join(told)


def _in_columns(name: str, phase: str, detail: str) -> str:
    """As in the table of a terminal, without its marks: a log of one is read in the other."""
    return f"{name:<{_NAME_WIDTH}}    {phase:<{_PHASE_WIDTH}}  {detail}".rstrip()


def _style(phase: str) -> str | None:
    return _MARKS[phase][1] if phase in ("died", "refused") else None
