"""The first line of each stage -> what it reads and writes, and to what end."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from schemas.topics import ANSWERED, TOPICS, Topic

DEFAULT_PREFIX = "memory"
REPLY = "the asker's reply topic"
"""How a stage's first line names the topic of its answers."""


@dataclass(frozen=True)
class Flow:
    """What one stage reads and writes, and to what end."""

    stage: str
    reads: Topic
    writes: Topic | None
    """None where the stream ends."""
    about: str
    stores: tuple[str, ...] = ()
    """Where else it writes."""
    follows_on: tuple[Topic, ...] = ()
    """Where it publishes what else follows."""

    @property
    def published(self) -> tuple[Topic, ...]:
        """Where it publishes."""
        return ((self.writes,) if self.writes else ()) + self.follows_on


def flows() -> Sequence[Flow]:
    """Every stage's flow, in the order of the stream."""
    modules = (item for item in files("consumers").iterdir() if item.name.endswith(".py"))
    first_lines = {
        module.name.removesuffix(".py"): module.read_text("utf-8").partition("\n")[0].strip('"')
        for module in modules
        if module.name != "__init__.py"
    }
    found = [flow_of(stage, line) for stage, line in first_lines.items()]
    return sorted(found, key=lambda f: (TOPICS.index(f.reads), f.stage))


def flow_of(stage: str, first_line: str) -> Flow:
    """`memory.events -> memory.classified: say what ...` as a Flow; ValueError where it is not so.

    The first topic behind the arrow gets an event for each that was read, the others what else follows.
    """
    named = {topic.under(DEFAULT_PREFIX): topic for topic in TOPICS} | {REPLY: ANSWERED}
    path, colon, about = first_line.partition(": ")
    reads, arrow, writes = path.partition(" -> ")
    targets = writes.split(", ")
    written = [named[name] for name in targets if name in named]
    stores = tuple(name for name in targets if name not in named)
    # A store has a name of its own, `Postgres`; what is small is meant to be a topic.
    known = written or stores
    if not (colon and arrow and reads in named and known and all(s[0].isupper() for s in stores)):
        raise ValueError(
            f"consumers/{stage}.py must begin with `topic -> topic: what for`, not with {first_line!r}"
        )
    return Flow(
        stage, named[reads], written[0] if written else None, about, stores, tuple(written[1:])
    )
