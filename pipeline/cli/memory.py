"""One memory in full, for a person: its text as it was said, and below that all that is known of it."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.cli.printing import moment, on_one_line, show

if TYPE_CHECKING:
    from schemas.events import Said
    from schemas.search import RecordedMemory

_NAME_WIDTH = 11
_MOST_CHARS = 200
"""Of what was said before it, which is another memory's text."""


def show_memory(memory: "RecordedMemory", user_id: str) -> None:
    """The text, then a line for each thing that is known; a name that has several stands once."""
    show(memory.text)
    show()
    before = ""
    for name, value in _lines(memory, user_id):
        shown = "" if name == before else name
        show(f"  {shown:<{_NAME_WIDTH}} {value}", style="dim")
        before = name


def _lines(memory: "RecordedMemory", user_id: str) -> Iterator[tuple[str, str]]:
    """Names and values, in the order in which somebody looks for them."""
    told: dict[str, str | None] = {
        "id": memory.memory_id,
        "user": user_id,
        "speaker": memory.speaker,
        "occurred": moment(memory.occurred_at),
        "published": _published(memory),
        "domain": memory.domain,
        "topics": ", ".join(memory.topics),
        "importance": None if memory.importance is None else f"{memory.importance:.2f}",
        "tier": _tier(memory),
        "stands for": ", ".join(memory.consolidated),
        "run": memory.run_id,
        "agent": memory.agent_id,
        "app": memory.app_id,
    }
    yield from ((name, on_one_line(value)) for name, value in told.items() if value)
    for name, value in memory.metadata.items():
        yield "metadata", on_one_line(f"{name} = {_as_text(value)}")
    for said in memory.preceding:
        yield "before it", _said(said)


def _published(memory: "RecordedMemory") -> str:
    version = f"version {memory.version}"
    return f"{moment(memory.published_at)}, {version}" if memory.published_at else version


def _tier(memory: "RecordedMemory") -> str:
    return f"{memory.tier}, consolidated into {memory.into}" if memory.into else memory.tier


def _said(said: "Said") -> str:
    return on_one_line(f"{said.speaker}: {said.text}" if said.speaker else said.text, _MOST_CHARS)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
