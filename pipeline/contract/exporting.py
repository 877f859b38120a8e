"""The contract as files, and their way into the repository."""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.contract.asyncapi import asyncapi_yaml
from pipeline.contract.compatibility import breaking_changes
from pipeline.contract.json_schemas import json_schemas


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
