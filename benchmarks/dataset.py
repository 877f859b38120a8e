"""A folder -> what was said, and questions with the memories that answer them.

memories.jsonl holds rows as `hybrid-memory import` takes them (a "session" makes a conversation, an
"image_caption" belongs to the text), queries.jsonl {"user", "text", "gold": [ids], "category"?}. What
cannot be read ends the benchmark with the file, the line and the reason: it would measure something else.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cli.rows import Conversations, memory_of
from pipeline.errors import Refused
from producers.client import NewMemory

UNANSWERABLE = "adversarial"
"""Questions that ask about another than their evidence tells of: papers give their figures without."""

Read = TypeVar("Read")


@dataclass(frozen=True)
class Question:
    """One question of the data set."""

    user: str
    text: str
    gold: frozenset[str]
    category: str


def memories(data: Path) -> list[NewMemory]:
    """What was said, each with what was said before it."""
    conversations = Conversations()
    return [conversations.follow(said) for said in read(data / "memories.jsonl", _memory)]


def questions(data: Path, most: int | None = None) -> list[Question]:
    """Those that something answers; `most` of them, drawn at random, always the same."""
    found = [one for one in read(data / "queries.jsonl", _question) if one.gold]
    if not found:
        raise SystemExit(f"{data / 'queries.jsonl'} has no question with gold.")
    return found if most is None else random.Random(0).sample(found, min(most, len(found)))


def read(path: Path, one: Callable[[Any], Read]) -> Sequence[Read]:
    """What `one` makes of each row of a file."""
    rows: list[Read] = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            rows.append(one(json.loads(line)))
        except Refused as error:
            raise SystemExit(f"{path}, line {number}: {error}") from None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise SystemExit(f"{path}, line {number}: {error!r}") from None
    return rows


def _memory(row: Any) -> NewMemory:
    caption = row.pop("image_caption", None)
    if caption:
        row["text"] += f" [shares photo: {caption}]"
    return memory_of(json.dumps(row).encode())


def _question(row: Any) -> Question:
    gold = frozenset(row.get("gold") or ())
    return Question(row["user"], row["text"], gold, row.get("category", "all"))
