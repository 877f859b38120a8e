"""The contract, as other programs read it: AsyncAPI, JSON Schemas, and what memories may be about."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from pipeline.cli.options import AsJson
from pipeline.cli.printing import show, show_json

Form = Annotated[Literal["yaml", "json"], typer.Option("--format", "-f", help="How it is written.")]


def register(app: typer.Typer) -> None:
    """Adds `docs ...`."""
    docs = typer.Typer(
        help="Print the contract: messages, schemas, subjects.",
        no_args_is_help=True,
        suggest_commands=False,
    )
    docs.command()(asyncapi)
    docs.command()(schemas)
    docs.command()(topics)
    app.add_typer(docs, name="docs", rich_help_panel="Operating")


def asyncapi(form: Form = "yaml") -> None:
    """Print the AsyncAPI document: each topic, and the messages on it.

    \b
    [dim]$[/dim] hybrid-memory docs asyncapi > asyncapi.yaml
    """
    from pipeline.cli.reaching import read_settings
    from pipeline.contract.asyncapi import asyncapi as document

    _print(document(read_settings().topic_prefix), form)


def schemas(form: Form = "json") -> None:
    """Print the JSON Schema of every message, by its name.

    \b
    [dim]$[/dim] hybrid-memory docs schemas | jq .MemoryEnriched
    """
    from pipeline.contract.json_schemas import json_schemas

    _print(json_schemas(), form)


def topics(json: AsJson = False) -> None:
    """List what a memory may be about: subjects, not topics of Kafka (those: `docs asyncapi`, `stages`).

    \b
    [dim]$[/dim] hybrid-memory docs topics
    [dim]$[/dim] hybrid-memory search "what to cook" --user alice --topic food
    """
    known = known_topics()
    if json:
        for topic in known:
            show_json(topic)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("domain", "subject (--topic)", "about"):
        table.add_column(heading)
    for topic in known:
        table.add_row(topic["domain"], topic["topic"], topic["about"])
    show(table)


def known_topics() -> list[dict[str, str]]:
    """What the classifier may say of a memory: `domain`, `topic` and `about`."""
    import tomllib
    from importlib.resources import files

    # As the classifier reads it, but without what a stage needs beside it.
    listed = tomllib.loads((files("pipeline.models") / "topics.toml").read_text("utf-8"))["topics"]
    return [
        {"domain": topic["domain"], "topic": name, "about": topic["about"]}
        for name, topic in listed.items()
    ]


def _print(document: Mapping[str, Any], form: Literal["yaml", "json"]) -> None:
    if form == "json":
        import json

        show_json(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        import yaml

        show_json(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).rstrip("\n"))
