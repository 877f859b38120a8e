"""The models of schemas/ -> JSON Schemas, with the docstrings of their fields."""

import ast
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from textwrap import dedent
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipeline.contract.carried import MESSAGES
from schemas.events import Message

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]


def json_schemas() -> dict[str, Json]:
    """One JSON Schema a message type, by its name; bytes are strings of URL-safe base64."""
    return {
        kind.__name__: {
            "$schema": DIALECT,
            "$id": f"urn:hybrid-memory:{kind.__name__}:{_schema_version(kind)}",
            **kind.model_json_schema(schema_generator=Schemas),
        }
        for kind in MESSAGES
    }


class Schemas(GenerateJsonSchema):
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
