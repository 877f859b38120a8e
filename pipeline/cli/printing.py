"""What people see: results on standard output, everything else on standard error.

Texts of memories are strangers' texts: nothing in them is taken for markup, and no control character
of theirs reaches the terminal.
"""

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from pipeline.errors import Refused

PIPED_WIDTH = 120
"""Columns that are filled where no terminal says how many there are."""
_UNLIMITED = 100_000

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)
_with_time = False
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")


def interactive() -> bool:
    """Whether a person watches standard error in a terminal."""
    return _err.is_terminal


def agreed(question: str) -> None:
    """Returns where a person says yes. Raises Abort, or Exit after Ctrl-C, where they do not, Refused where nobody is there to ask."""
    try:
        yes = typer.confirm(question, err=True)
    except typer.Abort as abort:
        if sys.stdin.isatty():
            # What was asked ends its line nowhere else.
            _err.print("\nAborted.")
            interrupted = isinstance(abort.__context__, KeyboardInterrupt)
            raise typer.Exit(130 if interrupted else 1) from None
        # What stands in no terminal is no answer; its line ends here.
        _err.print()
        raise Refused("Nobody is here to ask. Say --yes to do it without asking.") from None
    if not yes:
        raise typer.Abort


def errors() -> Console:
    """The console of standard error, for live displays."""
    return _err


def output() -> Console:
    """The console of standard output, for live displays."""
    return _out


def show(what: RenderableType = "", *, style: str | None = None) -> None:
    """A result. A string is printed without its control characters, on one line however long."""
    if isinstance(what, str | Text):
        _out.print(_plain(what), style=style, soft_wrap=True)
    else:
        _print_whole(what, style)


def _print_whole(what: RenderableType, style: str | None) -> None:
    if _out.is_terminal:
        _out.print(what, style=style)
        return
    # A file or a program has no width: nothing is wrapped, and no blanks fill the columns up.
    _out.width = _UNLIMITED
    with _out.capture() as captured:
        _out.print(what, style=style)
    lines = captured.get().split("\n")
    _out.file.write("\n".join(line.rstrip() for line in lines))
    _out.file.flush()


def tell(what: str | Text, *, style: str | None = None) -> None:
    """Something about the result: where it comes from, what goes on."""
    if not _with_time:
        _err.print(_plain(what), style=style, soft_wrap=True)
        return
    # A full disk takes no log, and is no reason to end what is told about.
    with suppress(OSError):
        what = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {what}"
        _err.print(_plain(what), style=style, soft_wrap=True)


def tell_a_log() -> None:
    """From now on, what is told begins with when: it is read another day. `untimed` takes it off."""
    global _with_time
    _with_time = True


def untimed(line: str) -> str:
    return _TIME.sub("", line)


def own_name() -> str:
    """How to call this program again: by its name if the shell finds it so, else by its path."""
    called, found = Path(sys.argv[0]), shutil.which("hybrid-memory")
    if called.name != "hybrid-memory" or (found and Path(found).resolve() == called.resolve()):
        return "hybrid-memory"
    return str(called)


def complain(what: str) -> None:
    """Why it did not work, and what to do."""
    tell(what, style="red")


def show_json(what: Mapping[str, Any] | str) -> None:
    """One object on one line, given as a mapping or as JSON already."""
    line = what if isinstance(what, str) else json.dumps(what, ensure_ascii=False, default=str)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def on_one_line(text: str, most_chars: int | None = None) -> str:
    """The text without line breaks and control characters, cut where it is too long."""
    line = " ".join(_visible(text).split())
    if most_chars is not None and len(line) > most_chars:
        return line[: most_chars - 1].rstrip() + "…"
    return line


def _plain(what: str | Text) -> Text:
    return Text(_visible(what)) if isinstance(what, str) else what


def _visible(text: str) -> str:
    """Format characters (Cf) stay: scripts need them; those that turn the line around do not."""
    return "".join(
        char if char in "\n\t\r" or not _commands(char) else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def _commands(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or char in _BIDI


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def moment(at: datetime) -> str:
    """A moment in this machine's time zone, to the minute."""
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """Short, with a unit a person would choose."""
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
