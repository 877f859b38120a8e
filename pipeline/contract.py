"""schemas/, consumers/ -> JSON Schemas and an AsyncAPI page: the contract, for readers without our code.

Everything is read off the code: messages off the models, flows off the first line of each stage. Nothing
here imports a stage, so that the light client can print the page too. `python -m pipeline.contract`
writes both into the repository, and refuses a schema that a reader of the last one would not understand.
"""

import ast
import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from schemas.events import (
    Classified,
    Enriched,
    Event,
    Lived,
    MemoryEvent,
    MemoryTiered,
    Message,
    Published,
    Settled,
    Stored,
)
from schemas.mem0 import Mem0CycleEnded, Mem0Seen
from schemas.search import Answer, Answered, OperatorAsked, Question, UserAsked
from schemas.topics import (
    ANSWERED,
    ASKED,
    CLASSIFIED,
    DEAD,
    ENRICHED,
    EVENTS,
    MEM0_CYCLES,
    MEM0_SEEN,
    OPERATOR_ASKED,
    RECALLED,
    STORED,
    TIERED,
    TOPICS,
    Topic,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BINDING = "0.5.0"
DEFAULT_PREFIX = "memory"
VERSION = "1"
"""Of the contract as a whole: the greatest `schema_version` of its messages."""
REPLY = "the asker's reply topic"
"""How a stage's first line names the topic of its answers."""

CARRIED: Mapping[Topic, Sequence[type[Message]]] = {
    EVENTS: get_args(Published),
    CLASSIFIED: get_args(Classified),
    ENRICHED: get_args(Enriched),
    STORED: get_args(Stored),
    ASKED: get_args(UserAsked),
    OPERATOR_ASKED: get_args(OperatorAsked),
    ANSWERED: get_args(Answered),
    DEAD: get_args(Settled),
    RECALLED: get_args(Lived),
    TIERED: (MemoryTiered,),
    MEM0_SEEN: (Mem0Seen,),
    MEM0_CYCLES: (Mem0CycleEnded,),
}
"""The messages of each topic; among the dead letters anything may stand beside them."""

MESSAGES = tuple(dict.fromkeys(kind for kinds in CARRIED.values() for kind in kinds))

Json = dict[str, Any]


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


def json_schemas() -> dict[str, Json]:
    """One JSON Schema a message type, by its name; bytes are strings of URL-safe base64."""
    return {
        kind.__name__: {
            "$schema": DIALECT,
            "$id": f"urn:hybrid-memory:{kind.__name__}:{_schema_version(kind)}",
            **kind.model_json_schema(schema_generator=_Schemas),
        }
        for kind in MESSAGES
    }


def asyncapi(prefix: str = DEFAULT_PREFIX, partitions: int = 6) -> Json:
    """The AsyncAPI 3.0 document: what each topic carries, and which stage reads and writes it."""
    _, shared = models_json_schema(
        [(kind, "validation") for kind in MESSAGES],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hybrid Memory",
            "version": VERSION,
            "description": "A memory for AI agents that is a stream: publish, subscribe and search over Kafka.",
        },
        "defaultContentType": "application/json",
        "channels": {_id(topic): _channel(topic, prefix, partitions) for topic in TOPICS},
        "operations": {
            name: operation
            for flow in flows()
            for name, operation in _operations(flow, prefix).items()
        },
        "components": {
            "messages": {
                **{kind.__name__: _message(kind) for kind in MESSAGES},
                "DeadLetter": _dead_letter(),
            },
            "schemas": shared["$defs"],
        },
    }


def asyncapi_yaml() -> str:
    """The AsyncAPI document as text."""
    import yaml

    return yaml.safe_dump(
        asyncapi(), sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )


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


# JSON Schema


class _Schemas(GenerateJsonSchema):
    """As pydantic makes them, with the fields' docstrings, and with what travels told exactly."""

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:  # noqa: ARG002
        return {"type": "string", "contentEncoding": "base64url"}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        properties: Json = made.get("properties", {})
        for name, text in field_docs(schema["cls"]).items():
            properties[name] = {**properties[name], "description": text}
        if "type" in properties:
            # Several kinds share a topic: without its type a message cannot be read.
            others = [name for name in made.get("required", []) if name != "type"]
            made["required"] = ["type", *others]
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The strings that stand below the fields, inherited ones too, by the names that travel."""
    docs: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            docs |= _own_docs(kind)
    aliases = {name: field.serialization_alias for name, field in model.model_fields.items()}
    return {aliases[name] or name: text for name, text in docs.items()}


@cache
def _own_docs(kind: type[BaseModel]) -> Mapping[str, str]:
    (tree,) = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return dict(_documented(tree.body))


def _documented(body: Sequence[ast.stmt]) -> Iterable[tuple[str, str]]:
    for field, below in pairwise(body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
            case _:
                continue


def _schema_version(kind: type[Message]) -> int:
    return kind.model_fields["schema_version"].default


# Compatibility

_WORDS = frozenset({"title", "description", "$id", "$schema", "$defs", "$ref", "examples"})
_Tree = dict[str, "_Tree | str"]


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


# AsyncAPI


def _id(topic: Topic) -> str:
    """`search.asked` as `searchAsked`: a channel's id, which must not depend on the prefix."""
    first, *rest = topic.name.split(".")
    return first + "".join(word.capitalize() for word in rest)


def _channel(topic: Topic, prefix: str, partitions: int) -> Json:
    kept = "delete.retention.ms" if topic.cleanup == "compact" else "retention.ms"
    lag = topic.min_compaction_lag_ms
    names = [kind.__name__ for kind in CARRIED[topic]] or ["DeadLetter"]
    return {
        "address": topic.under(prefix),
        "description": _sentence(topic.about),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": topic.under(prefix),
                "partitions": partitions,
                "topicConfiguration": {
                    "cleanup.policy": [topic.cleanup],
                    kept: topic.retention_ms,
                    **({"min.compaction.lag.ms": lag} if lag else {}),
                    "max.message.bytes": topic.max_message_bytes,
                },
                "bindingVersion": BINDING,
            }
        },
    }


def _message(kind: type[Message]) -> Json:
    key = key_described(kind)
    return {
        "name": kind.__name__,
        "summary": " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()),
        "contentType": "application/json",
        "headers": _headers(kind),
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        **_correlation(kind),
        **({"bindings": _keyed({"type": "string", **key})} if key else {}),
    }


def key_described(kind: type[Message]) -> Json | None:
    """What the Kafka key of a message is, as schema; None where it has none of its own."""
    if issubclass(kind, MemoryEvent):
        return {
            "format": "uuid",
            "description": "Made of user_id and memory_id: one memory, one key.",
        }
    if issubclass(kind, Event):
        return {"format": "uuid", "description": "Made of user_id."}
    if kind in CARRIED[STORED]:
        return {"description": "That of the message that was set aside."}
    if kind in CARRIED[MEM0_SEEN]:
        return {"description": "memory_id; a null value takes it out."}
    if kind in CARRIED[MEM0_CYCLES]:
        return {"description": "project_id."}
    return None


def _keyed(key: Json) -> Json:
    return {"kafka": {"key": key, "bindingVersion": BINDING}}


def _headers(kind: type[Message]) -> Json:
    told: Json = {
        "content-type": {"type": "string", "const": "application/json"},
        "type": {"type": "string", "const": kind.__name__},
    }
    if "event_id" in kind.model_fields:
        told["event-id"] = {"type": "string", "format": "uuid"}
    if issubclass(kind, Answer):
        told["correlation_id"] = {"type": "string", "format": "uuid"}
    return {"type": "object", "properties": told, "required": list(told)}


def _correlation(kind: type[Message]) -> Json:
    if issubclass(kind, Question):
        return {"correlationId": {"location": "$message.payload#/question_id"}}
    if issubclass(kind, Answer):
        return {"correlationId": {"location": "$message.header#/correlation_id"}}
    return {}


def _dead_letter() -> Json:
    text = {"type": "string"}
    told = {
        "dead-stage": {**text, "description": "Who could not use it."},
        "dead-reason": {**text, "description": "Why, without the content."},
        "dead-topic": {**text, "description": "Where it lay, or was to go."},
        "dead-partition": {**text, "pattern": "^(-1|[0-9]+)$"},
        "dead-offset": {
            **text,
            "pattern": "^(-1|[0-9]+)$",
            "description": "-1 of what was too large to go there.",
        },
        "dead-at": {**text, "format": "date-time"},
    }
    cut = {
        **text,
        "description": "Which of value, key and headers are not whole; without value or key none is redriven.",
    }
    return {
        "name": "DeadLetter",
        "summary": "What could not be used, with its own key, value and headers.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {**told, "dead-cut": cut},
            "required": list(told),
        },
        "payload": {"description": "The bytes as they came, as far as nothing of them was cut."},
        "bindings": _keyed({"description": "That of the message that could not be used."}),
    }


def _operations(flow: Flow, prefix: str) -> Json:
    reading: Json = {
        "action": "receive",
        "channel": _channel_ref(flow.reads),
        "summary": _sentence(flow.about),
        "bindings": {
            "kafka": {
                "groupId": {"type": "string", "const": f"{prefix}.{flow.stage}"},
                "bindingVersion": BINDING,
            }
        },
    }
    if flow.writes is ANSWERED:
        address = {"location": "$message.payload#/reply_to/topic"}
        reading["reply"] = {"address": address, "channel": _channel_ref(ANSWERED)}
        return {f"{flow.stage}_reads": reading, **_following(flow)}
    return {
        f"{flow.stage}_reads": reading,
        **_writing(flow),
        **_following(flow),
        f"{flow.stage}_sets_aside": _sending(DEAD, "What this stage could not use."),
        f"{flow.stage}_says_so": {
            **_sending(STORED, "Tells whoever waits for an event that it was set aside."),
            "messages": [{"$ref": f"#/channels/{_id(STORED)}/messages/MemorySetAside"}],
        },
    }


def _writing(flow: Flow) -> Json:
    if flow.writes is None:
        return {}
    sending = _sending(flow.writes, "At most one event for each that was read.")
    return {f"{flow.stage}_writes": sending}


def _following(flow: Flow) -> Json:
    return {
        f"{flow.stage}_follows_on_{_id(topic)}": _sending(topic, "What else follows.")
        for topic in flow.follows_on
    }


def _sending(topic: Topic, summary: str) -> Json:
    return {"action": "send", "channel": _channel_ref(topic), "summary": summary}


def _channel_ref(topic: Topic) -> Json:
    return {"$ref": f"#/channels/{_id(topic)}"}


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


# Export


def exported() -> dict[str, str]:
    """Every file of the contract, by its path below the project's root."""
    schemas = {
        f"schemas/json/{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in json_schemas().items()
    }
    return {**schemas, "docs/asyncapi.yaml": asyncapi_yaml()}


def export(root: Path) -> Sequence[str]:
    """Writes the contract below `root`; returns what changed.

    Writes nothing and raises ValueError where a schema broke with the one that is there.
    """
    broken = [
        f"{name}: {change}"
        for name, schema in json_schemas().items()
        if (file := root / f"schemas/json/{name}.json").exists()
        for change in breaking_changes(json.loads(file.read_text("utf-8")), schema)
    ]
    if broken:
        raise ValueError(
            "Readers of the last contract would not understand this one:\n  "
            + "\n  ".join(broken)
            + "\nAdd an optional field instead, or give the message a new schema_version."
        )
    changed: list[str] = []
    for path, text in exported().items():
        file = root / path
        if not file.exists() or file.read_text("utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
            changed.append(path)
    return changed


def main() -> int:
    """Writes the contract into the repository that this code stands in."""
    try:
        changed = export(Path(__file__).parent.parent)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"wrote {path}\n" for path in changed) or "nothing changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
