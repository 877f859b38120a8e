"""The exported contract is the code's, and does not change under its readers."""

import inspect
import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from pipeline.app import stage_modules
from pipeline.contract.asyncapi import asyncapi, key_described
from pipeline.contract.carried import CARRIED, MESSAGES
from pipeline.contract.compatibility import breaking_changes
from pipeline.contract.exporting import export, exported
from pipeline.contract.flows import flow_of, flows
from pipeline.contract.json_schemas import json_schemas
from pipeline.kafka.dead_letters import dead_headers, utc_now
from pipeline.kafka.records import Record, headers_of, key_of, value_of
from pipeline.settings import Settings
from pipeline.stage import Desk
from schemas.events import CLASSIFIED as CLASSIFIED_EVENTS
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import LIVED, PUBLISHED, SETTLED, MemoryTiered, Message, Stored
from schemas.events import STORED as STORED_EVENTS
from schemas.mem0 import KEPT
from schemas.search import ANSWERED as ANSWERS
from schemas.search import ASKED as QUESTIONS
from schemas.search import Answer
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

Json = dict[str, Any]

GOLDEN: Mapping[str, Json] = json.loads(
    Path(__file__).with_name("golden_messages.json").read_text("utf-8")
)
"""One message of each type as it travels, with every field. It is never edited, only added to."""
SCHEMAS = json_schemas()
PAGE = asyncapi()
EXPORTED = exported()
READERS: Mapping[Topic, TypeAdapter[Any]] = {
    EVENTS: PUBLISHED,
    CLASSIFIED: CLASSIFIED_EVENTS,
    ENRICHED: ENRICHED_EVENTS,
    STORED: STORED_EVENTS,
    ASKED: QUESTIONS,
    OPERATOR_ASKED: QUESTIONS,
    ANSWERED: ANSWERS,
    DEAD: SETTLED,
    RECALLED: LIVED,
    TIERED: TypeAdapter(MemoryTiered),
    MEM0_SEEN: KEPT,
    MEM0_CYCLES: KEPT,
}
BY_NAME = {kind.__name__: kind for kind in MESSAGES}

each_message = pytest.mark.parametrize("name", BY_NAME)


def accepted_by_schema(name: str, message: Json) -> bool:
    return Draft202012Validator(SCHEMAS[name]).is_valid(message)


def read(name: str, message: Json) -> Message:
    """As the readers of its first topic read it."""
    topic = next(topic for topic, kinds in CARRIED.items() if BY_NAME[name] in kinds)
    return READERS[topic].validate_json(json.dumps(message))


# What is exported


@pytest.mark.parametrize("path", EXPORTED)
def test_the_exported_files_are_the_codes(path: str, project: Path):
    assert (project / path).read_text("utf-8") == EXPORTED[path], "run `make contract`"


def test_nothing_else_is_exported(project: Path):
    there = {f"schemas/json/{file.name}" for file in (project / "schemas/json").iterdir()}
    assert there == {path for path in EXPORTED if path.startswith("schemas/")}


@each_message
def test_a_schema_is_a_schema(name: str):
    Draft202012Validator.check_schema(SCHEMAS[name])


# What travels


@each_message
def test_a_message_travels_unchanged(name: str):
    assert json.loads(value_of(read(name, GOLDEN[name]))) == GOLDEN[name]


@each_message
def test_a_message_fits_its_schema(name: str):
    Draft202012Validator(SCHEMAS[name]).validate(GOLDEN[name])


@each_message
def test_the_golden_message_has_every_field(name: str):
    assert set(GOLDEN[name]) == set(BY_NAME[name].model_fields)


@each_message
def test_an_unknown_field_is_let_through(name: str):
    message = {**GOLDEN[name], "from_the_future": {"any": ["thing"]}}
    assert accepted_by_schema(name, message)
    assert read(name, message) == read(name, GOLDEN[name])


@each_message
def test_an_unknown_schema_version_is_refused(name: str):
    message = {**GOLDEN[name], "schema_version": 2}
    assert not accepted_by_schema(name, message)
    with pytest.raises(ValidationError, match="schema_version"):
        read(name, message)


@each_message
def test_a_required_field_is_required(name: str):
    assert "type" in SCHEMAS[name]["required"]
    for field in SCHEMAS[name]["required"]:
        message = {key: value for key, value in GOLDEN[name].items() if key != field}
        assert not accepted_by_schema(name, message), field
        with pytest.raises(ValidationError):
            read(name, message)


@each_message
def test_an_optional_field_is_optional(name: str):
    required = SCHEMAS[name]["required"]
    message = {key: value for key, value in GOLDEN[name].items() if key in required}
    assert accepted_by_schema(name, message)
    read(name, message)


# What may change


def test_the_same_schema_breaks_nothing():
    assert all(breaking_changes(schema, schema) == [] for schema in SCHEMAS.values())


def test_a_new_optional_field_breaks_nothing():
    new = deepcopy(SCHEMAS["MemoryEnriched"])
    new["properties"]["mood"] = {"type": "string"}
    new["$defs"]["Said"]["properties"]["tone"] = {"type": "string", "default": "calm"}
    assert breaking_changes(SCHEMAS["MemoryEnriched"], new) == []


def test_a_new_optional_field_may_stand_in_a_default():
    new = deepcopy(SCHEMAS["SearchAsked"])
    new["$defs"]["SearchFilter"]["properties"]["mood"] = {"type": "string"}
    new["properties"]["filter"]["default"]["mood"] = None
    assert breaking_changes(SCHEMAS["SearchAsked"], new) == []
    new["properties"]["filter"]["default"]["speaker"] = "Ana"
    assert breaking_changes(SCHEMAS["SearchAsked"], new)


def test_what_holds_itself_breaks_where_any_of_its_fields_does():
    new = deepcopy(SCHEMAS["SearchAsked"])
    new["$defs"]["Where"]["properties"]["mood"] = {"type": "string"}
    assert breaking_changes(SCHEMAS["SearchAsked"], new) == []
    del new["$defs"]["Where"]["properties"]["speaker"]
    assert breaking_changes(SCHEMAS["SearchAsked"], new)


def test_other_words_break_nothing():
    new = deepcopy(SCHEMAS["MemoryEnriched"])
    new["description"] = "Else."
    new["properties"]["text_vector"]["description"] = "Else."
    assert breaking_changes(SCHEMAS["MemoryEnriched"], new) == []


def test_a_new_schema_version_may_change_anything():
    new = deepcopy(SCHEMAS["MemoryForgotten"])
    new["properties"] = {"schema_version": {"const": 2, "type": "integer"}}
    assert breaking_changes(SCHEMAS["MemoryForgotten"], new) == []


def without(schema: Json, field: str) -> Json:
    new = deepcopy(schema)
    del new["properties"][field]
    new["required"] = [name for name in new["required"] if name != field]
    return new


@each_message
def test_a_field_that_goes_breaks_its_readers(name: str):
    for field in SCHEMAS[name]["properties"]:
        if field != "schema_version":
            found = breaking_changes(SCHEMAS[name], without(SCHEMAS[name], field))
            assert any(f"$.properties.{field}" in change for change in found), field


@each_message
def test_a_field_that_is_renamed_breaks_its_readers(name: str):
    for field in SCHEMAS[name]["required"]:
        new = without(SCHEMAS[name], field)
        new["properties"]["renamed"] = SCHEMAS[name]["properties"][field]
        new["required"].append("renamed")
        assert breaking_changes(SCHEMAS[name], new), field


def test_a_new_required_field_breaks_its_readers():
    new = deepcopy(SCHEMAS["MemoryForgotten"])
    new["properties"]["why"] = {"type": "string"}
    new["required"].append("why")
    assert breaking_changes(SCHEMAS["MemoryForgotten"], new) == [
        '$.properties.why.type was not there, is "string"',
        '$.required.why was not there, is "why"',
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("properties", "version", "maximum"), 10),
        (("properties", "text", "maxLength"), 32_000),
        (("properties", "text", "type"), "integer"),
        (("properties", "importance", "default"), 0),
        (("properties", "domain", "enum"), ["coding", "business", "other", "home"]),
        (("$defs", "Vectors", "required"), ["dtype", "shape"]),
        (("$defs", "Said", "properties", "text", "maxLength"), 10),
        (("additionalProperties",), False),
    ],
)
def test_other_bounds_break_their_readers(path: tuple[str, ...], value: object):
    new = deepcopy(SCHEMAS["MemoryEnriched"])
    part = new
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert breaking_changes(SCHEMAS["MemoryEnriched"], new)


def test_exporting_twice_writes_once(tmp_path: Path):
    assert set(export(tmp_path)) == set(EXPORTED)
    assert export(tmp_path) == []


def test_exporting_refuses_what_breaks_the_last_contract(tmp_path: Path):
    export(tmp_path)
    file = tmp_path / "schemas/json/MemoryStored.json"
    older = json.loads(file.read_text("utf-8"))
    older["properties"]["shelf"] = {"type": "string"}
    file.write_text(json.dumps(older), "utf-8")
    with pytest.raises(ValueError, match=r"MemoryStored: \$\.properties\.shelf"):
        export(tmp_path)
    assert json.loads(file.read_text("utf-8")) == older


# The AsyncAPI page


@each_message
def test_headers_are_as_described(name: str):
    headers = headers_of(read(name, GOLDEN[name]))
    if issubclass(BY_NAME[name], Answer):
        headers["correlation_id"] = GOLDEN[name]["question_id"]
    described = PAGE["components"]["messages"][name]["headers"]
    assert set(headers) == set(described["properties"]) == set(described["required"])
    Draft202012Validator(described).validate(headers)


@each_message
def test_keys_are_as_described(name: str):
    has_own_key = key_of(read(name, GOLDEN[name])) is not None
    assert has_own_key == ("format" in (key_described(BY_NAME[name]) or {}))


def test_dead_letters_are_as_described():
    record: Record = Record(
        topic="memory.events",
        partition=1,
        offset=2,
        timestamp=0,
        timestamp_type=0,
        key=b"k",
        value=b"v",
        checksum=None,
        serialized_key_size=1,
        serialized_value_size=1,
        headers=[],
    )
    headers = dict(dead_headers(record, stage="classifier", reason="why", now=utc_now()))
    described = PAGE["components"]["messages"]["DeadLetter"]["headers"]
    assert set(headers) == set(described["required"])
    text = {name: value.decode() for name, value in headers.items()}
    Draft202012Validator(described).validate(text)


def test_every_reference_leads_somewhere():
    def check(part: Any) -> None:
        match part:
            case {"$ref": ref}:
                target: Any = PAGE
                for key in ref.removeprefix("#/").split("/"):
                    target = target[key]
            case dict():
                for value in part.values():
                    check(value)
            case list():
                for value in part:
                    check(value)
            case _:
                return

    check(PAGE)


def test_the_prefix_is_everywhere_or_nowhere():
    acme = asyncapi("acme")
    text = yaml.safe_dump(acme)
    assert not [topic.name for topic in TOPICS if topic.under("memory") in text]
    assert "memory.classifier" not in text
    assert acme["operations"].keys() == PAGE["operations"].keys()


def test_partitions_are_the_settings():
    default = Settings.model_fields["kafka_partitions"].default
    assert asyncapi(partitions=default) == PAGE


def test_the_first_line_of_a_stage_tells_the_truth():
    told = {flow.stage: flow for flow in flows()}
    modules = stage_modules()
    assert told.keys() == modules.keys()
    for name, module in modules.items():
        made = module.stage(**dict.fromkeys(inspect.signature(module.stage).parameters))
        writes = ANSWERED if isinstance(made, Desk) else made.writes
        assert (made.name, made.reads, writes) == (name, told[name].reads, told[name].writes)
        tells = ((made.tells,) if made.tells else ()) if isinstance(made, Desk) else made.follows_on
        assert tells == told[name].follows_on


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Handles memories.",
        "memory.events -> nowhere: why",
        "somewhere -> memory.events: why",
        "memory.events -> memory.classified",
        "memory.events -> memory.classified, nowhere: why",
    ],
)
def test_a_first_line_that_tells_no_flow_is_refused(line: str):
    with pytest.raises(ValueError, match=r"consumers/odd\.py must begin with"):
        flow_of("odd", line)


def test_notices_are_what_stages_write():
    assert CARRIED[STORED] == get_args(Stored)
