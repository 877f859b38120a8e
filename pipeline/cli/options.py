"""Options that several commands share, and how their values are read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import Refused

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="HYBRID_MEMORY_DATA",
        help="Data folder of the stack to use; the one started last unless given.",
        show_default=False,
        show_envvar=False,
    ),
]
NewData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="HYBRID_MEMORY_DATA",
        help="Where it keeps its data; a folder of this user's unless given.",
        show_default=False,
        show_envvar=False,
    ),
]


def named(user: str | None) -> str | None:
    """Says it of the option as it was typed; what else an id may be, the client checks."""
    if user is not None and not user.strip():
        raise typer.BadParameter("is empty. Name a user, as in --user alice.")
    return user


User = Annotated[
    str,
    typer.Option("--user", "-u", metavar="USER", callback=named, help="Whose memory it is."),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON for a program, and nothing else; errors stay on standard error.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until both stores have done with it.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", min=0.1, help="Seconds to wait at most.")
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        help="As it was then; what was forgotten since stays forgotten. A future time is the same as now.",
        show_default=False,
    ),
]
MetadataPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        "-m",
        metavar="KEY=VALUE",
        help="May be given several times. A VALUE that is JSON (3, true) is that, else it is text.",
        show_default=False,
    ),
]


def pairs(given: Sequence[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` each. Raises Refused where a KEY is missing or there twice."""
    found: dict[str, Any] = {}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Refused(
                f"--metadata takes KEY=VALUE, as in --metadata source=chat; not {pair!r}."
            )
        if key in found:
            raise Refused(f"--metadata {key}=... is given twice.")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
