"""What flows from where to where: read from the first lines of the stages, without importing them.

A stage's module begins `memory.classified -> memory.enriched: place each memory among the others.`, and
its function `stage` names the ports it needs.
"""

import ast
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import consumers
from schemas.topics import TOPICS

_WORDED = "memory."


@dataclass(frozen=True)
class Flow:
    """One stage, in its own words."""

    name: str
    reads: str
    """A topic, as named below the prefix `memory`."""
    writes: tuple[str, ...]
    """Topics and stores."""
    about: str
    """What it does, in a line."""
    ports: tuple[str, ...]

    def group(self, prefix: str) -> str:
        """Its consumer group."""
        return f"{prefix}.{self.name}"

    def topic(self, prefix: str) -> str:
        """The topic it reads, by its full name."""
        return f"{prefix}.{self.reads.removeprefix(_WORDED)}"


def flows() -> Sequence[Flow]:
    """Every stage, in the order of the stream."""
    folder = Path(next(iter(consumers.__path__)))
    names = [module.name for module in pkgutil.iter_modules([str(folder)])]
    told = [flow_of(name, (folder / f"{name}.py").read_text("utf-8")) for name in names]
    return sorted(told, key=_place)


def flow_of(name: str, source: str) -> Flow:
    """The flow that a stage's source tells of."""
    module = ast.parse(source)
    first, _, _ = (ast.get_docstring(module) or "").partition("\n")
    way, _, about = first.partition(": ")
    reads, _, writes = way.partition(" -> ")
    return Flow(
        name=name,
        reads=reads,
        writes=tuple(target.strip() for target in writes.split(",")),
        about=about.rstrip("."),
        ports=_ports(module),
    )


def _ports(module: ast.Module) -> tuple[str, ...]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "stage":
            return tuple(argument.arg for argument in node.args.args)
    return ()


def _place(flow: Flow) -> tuple[int, str]:
    known = [_WORDED + topic.name for topic in TOPICS]
    return (known.index(flow.reads) if flow.reads in known else len(known), flow.name)
