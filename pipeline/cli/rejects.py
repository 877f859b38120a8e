"""The rows of an import that cannot be used: the first are told, all are kept where that is wanted.

A file that is there already is never overwritten: it may be the one that is imported.
"""

from collections.abc import Callable
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.printing import on_one_line, tell
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.cli.lines import Line

TOLD = 10


def by_number(line: "Line") -> str:
    """What to call a row of a file."""
    return f"line {line.number}"


def by_id(line: "Line") -> str:
    """What to call a row that was written down for us: nobody knows its line."""
    memory_id = loads(line.content)["id"] if line.content else f"number {line.number}"
    return f"memory {memory_id}"


class Rejects:
    """Tells of each row once: an earlier run has told of those up to the line `told_before`.

    Where it has, this goes on in the file that it began.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        told_before: int = 0,
        naming: "Callable[[Line], str]" = by_number,
    ) -> None:
        append = told_before > 0
        self._told, self._told_before = 0, told_before
        self._path, self._naming = path, naming
        self._mode = "a" if append else "x"
        if path is not None and not append and path.exists():
            raise Refused(f"--rejects {path} is there already: name a new file, or remove it.")
        if path is not None:
            self._try(path)

    def add(self, line: "Line", reason: str) -> None:
        """One row that cannot be used."""
        if line.number <= self._told_before:
            return
        if self._told < TOLD:
            tell(f"{self._naming(line)}: {on_one_line(reason, 300)}", style="yellow")
        self._told += 1
        if self._path is not None:
            row = (line.content or b"").decode("utf-8", "backslashreplace")
            self._keep(self._path, dumps({"line": line.number, "reason": reason, "row": row}))

    def _try(self, path: Path) -> None:
        """Before anything is published: the first bad row may be the last one of many."""
        was_there = path.exists()
        try:
            path.open("ab").close()
        except OSError as error:
            raise _unwritable(path, error) from error
        if not was_there:
            path.unlink()

    def _keep(self, path: Path, told: str) -> None:
        try:
            with path.open(self._mode, encoding="utf-8") as file:
                file.write(told + "\n")
        except OSError as error:
            raise _unwritable(path, error) from error
        self._mode = "a"

    def tell_rest(self) -> None:
        """How many were not told one by one."""
        if self._told > TOLD:
            where = f"All are in {self._path}." if self._path else "--rejects FILE keeps all."
            tell(f"and {self._told - TOLD:,} more. {where}", style="yellow")


def _unwritable(path: Path, error: OSError) -> Refused:
    return Refused(f"--rejects {path} cannot be written: {error.strerror}.")
