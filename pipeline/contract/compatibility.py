"""Two schemas of one message in, what would break between their readers out."""

import json
from collections.abc import Iterable
from typing import Any

from pipeline.contract.json_schemas import Json

_WORDS = frozenset({"title", "description", "$id", "$schema", "$defs", "$ref", "examples"})
_Tree = dict[str, "_Tree | str"]


def breaking_changes(old: Json, new: Json) -> list[str]:
    """Where a reader of `old` would not understand `new`, or the other way round.

    A new optional field is fine, and so are other words about the same; with a new schema version
    everything is.
    """
    if _version_of(old) != _version_of(new):
        return []
    before, now = _plain(old, old), _plain(new, new)
    was = dict(_leaves(before, "$"))
    becomes = dict(_leaves(_without_added(now, before), "$"))
    return [
        f"{where} was {was.get(where, 'not there')}, is {becomes.get(where, 'not there')}"
        for where in sorted({*was, *becomes})
        if was.get(where) != becomes.get(where)
    ]


def _version_of(schema: Json) -> Any:
    return schema["properties"]["schema_version"]["const"]


def _plain(part: Any, root: Json, within: tuple[str, ...] = ()) -> Any:
    """The schema as dicts within dicts, without references and without what is only said about it.

    What refers to something that it stands in, by its names in `within`, is told by that name.
    """
    match part:
        case {"$ref": ref, **rest}:
            name = ref.removeprefix("#/$defs/")
            if name in within:
                return json.dumps(name)
            return _plain({**root["$defs"][name], **rest}, root, (*within, name))
        case dict():
            return {
                key: _plain_fields(value, root, within)
                if key == "properties"
                else _plain(value, root, within)
                for key, value in part.items()
                if key not in _WORDS
            }
        case list():
            # By content where that is a name (`required`), else by place (`anyOf`).
            return {
                item if isinstance(item, str) else str(place): _plain(item, root, within)
                for place, item in enumerate(part)
            }
        case _:
            return json.dumps(part)


def _plain_fields(fields: Json, root: Json, within: tuple[str, ...]) -> _Tree:
    return {name: _plain(field, root, within) for name, field in fields.items()}


def _without_added(new: Any, old: Any) -> Any:
    """`new` without the optional fields that `old` does not have."""
    if not (isinstance(new, dict) and isinstance(old, dict)):
        return new
    had, required = old.get("properties", {}), new.get("required", {})
    known = {
        key: {n: field for n, field in value.items() if n in had or n in required}
        if key == "properties"
        else value
        for key, value in new.items()
    }
    # A default that is an object names the new fields, too.
    if isinstance(default := known.get("default"), dict):
        known["default"] = {n: value for n, value in default.items() if n not in _added(new, had)}
    return {key: _without_added(value, old.get(key)) for key, value in known.items()}


def _added(new: Any, had: Any) -> set[str]:
    return set(new.get("properties", {})) - set(had) - set(new.get("required", {}))


def _leaves(part: Any, where: str) -> Iterable[tuple[str, str]]:
    if not isinstance(part, dict):
        yield where, part
        return
    for key, value in part.items():
        yield from _leaves(value, f"{where}.{key}")
