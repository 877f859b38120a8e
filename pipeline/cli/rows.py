"""Lines of a file -> memories to remember: what each says, or why it cannot be used.

    {"user": "alice", "text": "...", "id"?, "date"?, "speaker"?, "run_id"? or "session"?,
     "agent_id"?, "app_id"?, ...everything else is metadata}

Pure: a line always gives the same memory with the same id, and unless it is to overwrite what is there, the
same idempotency key: importing it again changes nothing, not even what was revised or forgotten since.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from hashlib import sha256
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.cli.dates import text_of, when
from pipeline.domain.telling import told
from pipeline.errors import Refused
from producers.client import NewMemory
from schemas.events import Said

CONVERSATIONS = 1_000
"""How many conversations are followed at a time."""

_IDS = {
    "user_id": ("user", "user_id"),
    "memory_id": ("id", "memory_id"),
    "run_id": ("run_id", "session"),
    "agent_id": ("agent_id",),
    "app_id": ("app_id",),
    "speaker": ("speaker",),
}
"""What a row may call each field; two names must not say two things."""
_DATES = ("date", "occurred_at")
_MEANT = {
    "text": ("content", "message", "memory", "note", "body", "data", "fact"),
    "user": ("owner", "username", "user_name", "userid", "uid", "account"),
}
"""What others call a field that a row must have. Only told, never taken: they may mean something else by it."""
_KEPT: TypeAdapter[dict[str, list[Said]]] = TypeAdapter(dict[str, list[Said]])


def memory_of(line: bytes, *, user: str | None = None, overwrite: bool = False) -> NewMemory:
    """The memory that a line tells; `user` stands in where the row names none.

    With `overwrite` it is the newest state of its memory, otherwise it yields to any other.

    Raises Refused with what is wrong with it.
    """
    row = _row(line)
    date = _only(row, _DATES)
    ids = {field: _id(names[0], _only(row, names)) for field, names in _IDS.items()}
    user_id = ids["user_id"] or user
    if user_id is None:
        near = _near("user", row)
        raise Refused(f'no "user"{near}: whose memory is it? Give --user for rows that do not say')
    if row.get("text") is None:
        raise Refused(f'no "text"{_near("text", row)}: what is to be remembered?')
    memory_id = ids["memory_id"] or _derived_id(user_id, line)
    fields: dict[str, Any] = {
        **ids,
        "user_id": user_id,
        "memory_id": memory_id,
        "idempotency_key": None if overwrite else _key(memory_id),
        "occurred_at": None if date is None else when(text_of(date)),
        "text": row.pop("text"),
        "metadata": _metadata(row),
    }
    try:
        return NewMemory(**fields)
    except ValidationError as error:
        raise Refused(told(error)) from error


def _only(row: dict[str, Any], names: Sequence[str]) -> Any:
    """Takes the field out of the row, whichever of `names` it has there."""
    found = {name: value for name in names if (value := row.pop(name, None)) is not None}
    if len({json.dumps(value) for value in found.values()}) > 1:
        raise Refused(f"{' and '.join(found)} say different things")
    return next(iter(found.values()), None)


def _row(line: bytes) -> dict[str, Any]:
    try:
        row: Any = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"no JSON in UTF-8: {error}") from error
    if not isinstance(row, dict):
        raise Refused('no JSON object: a row looks like {"user": "alice", "text": "..."}')
    return row


def _near(name: str, row: Mapping[str, Any]) -> str:
    """What the row has that may be meant, in words; nothing where nothing comes near."""
    there = [key for key, value in row.items() if value is not None]
    spelt = get_close_matches(name, [key.lower() for key in there], n=1)
    meant = [key for key in there if key.lower() in (*spelt, *_MEANT[name])]
    return f' (there is "{meant[0]}")' if meant else ""


def _id(name: str, value: Any) -> str | None:
    """Ids are text; a whole number is taken for its digits."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Refused(f'"{name}" must be text')


def _derived_id(user_id: str, line: bytes) -> str:
    """The same line of the same user is the same memory."""
    named = user_id.encode("utf-8", "surrogatepass")
    return sha256(b"%d:%b%b" % (len(named), named, line.strip())).hexdigest()[:32]


def _key(memory_id: str) -> str:
    named = memory_id.encode("utf-8", "surrogatepass")
    return f"import:{sha256(named).hexdigest()[:32]}"


def _metadata(rest: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a row. A field without a value says nothing."""
    own = rest.get("metadata")
    flat = {name: value for name, value in rest.items() if name != "metadata"}
    if isinstance(own, dict):
        flat |= own
    elif own is not None:
        raise Refused('"metadata" must be a JSON object')
    return {name: value for name, value in flat.items() if value is not None}


class Conversations:
    """What was said just before, in each of the conversations that went on last."""

    def __init__(self, kept: "Mapping[str, list[Said]] | None" = None) -> None:
        self._said: OrderedDict[str, list[Said]] = OrderedDict(kept or {})

    def follow(self, memory: NewMemory) -> NewMemory:
        """The memory with the two texts before it in its run; a memory without a run stands alone."""
        if memory.run_id is None:
            return memory
        key = json.dumps([memory.user_id, memory.run_id])
        before = self._said.pop(key, [])
        said = Said(text=memory.text, speaker=memory.speaker, occurred_at=memory.occurred_at)
        self._said[key] = [*before, said][-2:]
        while len(self._said) > CONVERSATIONS:
            self._said.popitem(last=False)
        return memory.model_copy(update={"preceding": tuple(before)})

    def as_kept(self) -> dict[str, Any]:
        """As JSON can keep it; `from_kept` reads it back."""
        return _KEPT.dump_python(dict(self._said), mode="json", exclude_none=True)

    @classmethod
    def from_kept(cls, kept: Any) -> "Conversations":
        """Raises ValueError where `kept` is something else."""
        return cls(_KEPT.validate_python(kept))
