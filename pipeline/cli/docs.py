"""The contract, as other programs read it: AsyncAPI, and JSON Schemas."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from pipeline.cli.printing import show_json

Form = Annotated[Literal["yaml", "json"], typer.Option("--format", "-f", help="How it is written.")]


def register(app: typer.Typer) -> None:
    """Adds `docs ...`."""
    docs = typer.Typer(help="Print the contract: topics, messages, schemas.", no_args_is_help=True)
    docs.command()(asyncapi)
    docs.command()(schemas)
    app.add_typer(docs, name="docs", rich_help_panel="Operating")


def asyncapi(form: Form = "yaml") -> None:
    """Print the AsyncAPI document: each topic, and the messages on it.

    \b
    [dim]$[/dim] hybrid-memory docs asyncapi > asyncapi.yaml
    """
    from pipeline import contract
    from pipeline.cli.reaching import read_settings

    _print(contract.asyncapi(read_settings().topic_prefix), form)


def schemas(form: Form = "json") -> None:
    """Print the JSON Schema of every message, by its name.

    \b
    [dim]$[/dim] hybrid-memory docs schemas | jq .MemoryEnriched
    """
    from pipeline import contract

    _print(contract.json_schemas(), form)


def _print(document: Mapping[str, Any], form: Literal["yaml", "json"]) -> None:
    if form == "json":
        import json

        show_json(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        import yaml

        show_json(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).rstrip("\n"))
