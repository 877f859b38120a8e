"""The whole stream on a sample: three people's memories in, questions answered, one changed, one gone."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.hops import STEPS, Heard, hearing
from pipeline.cli.options import NewData
from pipeline.cli.printing import PIPED_WIDTH, duration, on_one_line, output, own_name, show
from pipeline.cli.reaching import client_of, quiet, read_settings, running
from pipeline.cli.search import about
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pipeline.embedded import Stack
    from producers.client import MemoryClient
    from producers.receipts import Receipt
    from schemas.search import SearchAnswered

PATIENCE_S = 300.0
SHOWN = 3
"""Questions of each user whose answers are shown; all are asked."""


def register(app: typer.Typer) -> None:
    """Adds `demo`."""
    app.command(rich_help_panel="Stack")(demo)


@dataclass(frozen=True)
class Sample:
    """What is loaded and asked."""

    memories: Path
    questions: Sequence[dict[str, Any]]
    story: dict[str, dict[str, str]]
    ids: dict[str, set[str]]
    """The ids of the memories, by user."""


def demo(data: NewData = None) -> None:
    """See everything at work: some 200 memories of three people, stored, found, changed, forgotten.

    Starts a stack of its own, unless one runs already, and stops it at the end. May be repeated.

    \b
    [dim]$[/dim] hybrid-memory demo
    """
    from pipeline.embedded import default_data, discover

    quiet()
    sample = _sample()
    default = default_data()
    otherwise = default.with_name(f"{default.name}-demo")
    began = time.monotonic()
    stack = running(_demo(sample, data, otherwise))
    show()
    show(f"That was all, in {duration(time.monotonic() - began)}. To look around by yourself:")
    if discover(stack.data) is None:
        show(f"  {own_name()} up --detach --data {stack.data}")
    show(f'  {own_name()} search "Which courier do we use?" --user amara')


def _sample() -> Sample:
    folder = _folder()
    rows = [
        json.loads(line) for line in (folder / "memories.jsonl").read_text("utf-8").splitlines()
    ]
    questions = (folder / "questions.jsonl").read_text("utf-8").splitlines()
    ids: dict[str, set[str]] = {}
    for row in rows:
        ids.setdefault(row["user_id"], set()).add(row["id"])
    return Sample(
        memories=folder / "memories.jsonl",
        questions=[json.loads(line) for line in questions],
        story=json.loads((folder / "story.json").read_text("utf-8")),
        ids=ids,
    )


def _folder() -> Path:
    packaged = Path(str(files("pipeline"))) / "examples"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "examples"
    if not folder.is_dir():
        raise Refused("The sample is not here: run the demo in the project's folder.")
    return folder


async def _demo(sample: Sample, data: Path | None, otherwise: Path) -> "Stack":
    from pipeline.cli.borrowed import borrowed_stack

    settings = read_settings()
    _step("The stack", "Kafka, Postgres, Valkey, Qdrant Edge and the stages, on this machine")
    async with borrowed_stack(data, otherwise, settings) as stack:
        kafka = settings.kafka(stack.kafka_bootstrap_servers)
        prefix = settings.topic_prefix
        async with client_of(kafka, prefix) as client, hearing(kafka, prefix) as heard:
            loaded = await _load(client, sample)
            await _ask(client, sample)
            told = [await _revise(client, sample.story["revise"])]
            await _forget(client, sample.story["forget"])
            _show_hops(heard, loaded, told)
        show()
    return stack


async def _load(client: "MemoryClient", sample: Sample) -> list[UUID]:
    from pipeline.cli.meter import Meter

    await _only_the_sample(client, sample)
    _step("Forget", "UserForgotten -> memory.events: whatever an earlier demo left")
    for user in sample.ids:
        await (await client.forget_user(user)).stored(timeout_s=PATIENCE_S)
    count = sum(len(ids) for ids in sample.ids.values())
    _step("Remember", f"{count} memories of {', '.join(sample.ids)} -> memory.events")
    began = time.monotonic()
    with Meter(count) as meter:
        receipts = await _remember(client, sample)
        meter.accepted(len(receipts))
        await client.stored(receipts, timeout_s=PATIENCE_S, on_progress=meter.stored)
    took_s = time.monotonic() - began
    show(
        f"  {count} classified, embedded, in Postgres and in the index after {duration(took_s)}: "
        f"{count / took_s:.0f}/s"
    )
    return [receipt.event_id for receipt in receipts]


async def _remember(client: "MemoryClient", sample: Sample) -> "list[Receipt]":
    from pipeline.cli.rows import Conversations, memory_of

    conversations = Conversations()
    lines = sample.memories.read_bytes().splitlines()
    return await client.remember_many(
        # What an earlier demo left was just forgotten, and this brings it back.
        [conversations.follow(memory_of(line, overwrite=True)) for line in lines]
    )


async def _only_the_sample(client: "MemoryClient", sample: Sample) -> None:
    """The demo forgets its users first: they must be nobody else's. Raises Refused."""
    for user, ids in sample.ids.items():
        # A hundred is more than a user of the sample has: a memory of somebody else shows.
        answered = await client.search("memory", user_id=user, limit=100, timeout_s=PATIENCE_S)
        if strange := {hit.memory_id for hit in answered.hits} - ids:
            raise Refused(
                f"This stack has memories of {user} that are not the demo's ({len(strange)} seen), and "
                "the demo would forget them. Stop the stack (`hybrid-memory down`), and the demo "
                "starts one of its own."
            )


async def _ask(client: "MemoryClient", sample: Sample) -> None:
    _step("Ask", "memory.search.asked -> the query consumer -> memory.search.answered")
    times_ms: list[float] = []
    first, among_three = 0, 0
    left_to_show = dict.fromkeys(sample.ids, SHOWN)
    for question in sample.questions:
        answered, took_ms = await _search(client, question)
        times_ms.append(took_ms)
        ids = [hit.memory_id for hit in answered.hits]
        first += bool(ids) and ids[0] in question["expect"]
        among_three += set(question["expect"]) <= set(ids)
        left_to_show[question["user_id"]] -= 1
        if left_to_show[question["user_id"]] >= 0:
            _show_question(question)
            _show_answers(answered, took_ms, most=2)
    show(
        f"  {len(times_ms)} questions asked, {median(times_ms):.0f} ms each over Kafka and back "
        f"(median). The answer expected came first {first} times,"
    )
    show(f"  all that were expected were among the first three {among_three} times.")


async def _search(
    client: "MemoryClient", question: dict[str, Any]
) -> "tuple[SearchAnswered, float]":
    began = time.perf_counter()
    answered = await client.search(
        question["text"],
        user_id=question["user_id"],
        limit=3,
        filter=question.get("filter"),
        timeout_s=PATIENCE_S,
    )
    return answered, (time.perf_counter() - began) * 1_000


def _show_question(question: dict[str, Any]) -> None:
    conditions = dict(question.get("filter", {}))
    conditions |= conditions.pop("metadata", {})
    narrowed = ", ".join(f"{name}={value}" for name, value in conditions.items())
    asked = Text.assemble((f"  {question['user_id']:<7} ", "cyan"), question["text"])
    show(asked.append(f"  [{narrowed}]" if narrowed else "", "dim"))


def _show_answers(answered: "SearchAnswered", took_ms: float, *, most: int = 1) -> None:
    if not answered.hits:
        show("          nothing found", style="yellow")
    width = output().width if output().is_terminal else PIPED_WIDTH
    for place, hit in enumerate(answered.hits[:most]):
        line = Text.assemble("          ", (f"{hit.score:.2f} ", "green"))
        room = max(30, width - len(line) - len(about(hit)) - 10)
        line.append(on_one_line(hit.text, room))
        line.append(f"  {about(hit)}", "yellow")
        show(line.append(f"  {took_ms:.0f} ms" if place == 0 else "", "dim"))


async def _revise(client: "MemoryClient", story: dict[str, str]) -> UUID:
    _step("Revise", f"MemoryRevised {story['id']} -> memory.events")
    question = {"user_id": story["user_id"], "text": story["question"]}
    _show_question(question)
    _show_answers(*await _search(client, question))
    receipt = await client.revise(
        story["id"], story["text"], user_id=story["user_id"], timeout_s=PATIENCE_S
    )
    await receipt.stored(timeout_s=PATIENCE_S)
    show("  and once it is revised:")
    _show_answers(*await _search(client, question))
    return receipt.event_id


async def _forget(client: "MemoryClient", story: dict[str, str]) -> None:
    _step("Forget", f"MemoryForgotten {story['id']} -> memory.events")
    question = {"user_id": story["user_id"], "text": story["question"]}
    _show_question(question)
    _show_answers(*await _search(client, question))
    receipt = await client.forget(story["id"], user_id=story["user_id"])
    await receipt.stored(timeout_s=PATIENCE_S)
    show("  and once it is forgotten:")
    _show_answers(*await _search(client, question))


def _show_hops(heard: Heard, many: Sequence[UUID], one: Sequence[UUID]) -> None:
    _step("Where the time goes", "from one topic to the next, heard on memory.stored")
    at_once, alone = heard.medians_ms(many), heard.medians_ms(one)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("  stage")
    table.add_column(f"{len(many)} at once, median", justify="right")
    table.add_column("the revision alone", justify="right")
    for stage in [*(stage for stage, _ in STEPS), "searchable"]:
        cells = (f"{times[stage]:.0f} ms" if stage in times else "?" for times in (at_once, alone))
        table.add_row(f"  {stage}", *cells)
    show(table)


def _step(name: str, what: str) -> None:
    show()
    show(Text.assemble((name, "bold"), f"  {what}"))
