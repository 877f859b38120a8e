"""Topics, messages and flows -> the AsyncAPI page."""

import inspect

from pydantic.json_schema import models_json_schema

from pipeline.contract.carried import CARRIED, MESSAGES
from pipeline.contract.flows import DEFAULT_PREFIX, Flow, flows
from pipeline.contract.json_schemas import Json, Schemas
from schemas.events import Event, MemoryEvent, Message
from schemas.search import Answer, Question
from schemas.topics import ANSWERED, DEAD, MEM0_CYCLES, MEM0_SEEN, STORED, TOPICS, Topic

BINDING = "0.5.0"
VERSION = "1"
"""Of the contract as a whole: the greatest `schema_version` of its messages."""


def asyncapi(prefix: str = DEFAULT_PREFIX, partitions: int = 6) -> Json:
    """The AsyncAPI 3.0 document: what each topic carries, and which stage reads and writes it."""
    _, shared = models_json_schema(
        [(kind, "validation") for kind in MESSAGES],
        ref_template="#/components/schemas/{model}",
        schema_generator=Schemas,
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
