"""The whole stream on a sample: three people's memories in Mem0, followed, asked about, one changed, one gone.

Mem0 is a stand-in for its platform, on this machine. Somebody's own Mem0 is followed only where a person
says so, and only read.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.hops import STEPS, Heard, hearing
from pipeline.cli.polling import polling
from pipeline.cli.printing import PIPED_WIDTH, duration, on_one_line, output, own_name, show, tell
from pipeline.cli.reaching import client_of, quiet, read_settings, running
from pipeline.cli.search import about
from pipeline.errors import Refused, Unavailable

if TYPE_CHECKING:
    from pipeline.cli.polling import Found
    from pipeline.embedded import Stack
    from pipeline.kafka.connection import KafkaConnection
    from pipeline.settings import Settings
    from pipeline.sources.mem0_api import Mem0Api
    from pipeline.sources.mem0_sim.server import Mem0Sim
    from producers.client import MemoryClient
    from producers.mem0_poller import Opening
    from schemas.search import SearchAnswered

PATIENCE_S = 300.0
NO_SERVERS = {
    "KAFKA_BOOTSTRAP_SERVERS": "",
    "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    "POSTGRES_DSN": "",
    "QDRANT_URL": "",
    "REDIS_URL": "",
}
"""Somebody's servers hold memories of theirs: here, and in the stages, none is set."""
INTERVAL_S = 0.3
"""Between two looks at Mem0: a person watches."""
SHOWN = 3
"""Questions of each user whose answers are shown; all are asked."""


def register(app: typer.Typer) -> None:
    """Adds `demo`."""
    app.command(rich_help_panel="Stack")(demo)


@dataclass(frozen=True)
class Sample:
    """What Mem0 holds at first, and what is asked."""

    memories: Path
    questions: Sequence[dict[str, Any]]
    story: dict[str, dict[str, str]]
    ids: dict[str, set[str]]
    """The ids of the memories, by user."""


@dataclass(frozen=True)
class InMem0:
    """The sample in the stand-in: the ids that it gave to the memories, by those of the sample."""

    sim: "Mem0Sim"
    ids: Mapping[str, str]


def demo(
    data: Annotated[
        Path | None,
        # No variable: HYBRID_MEMORY_DATA names data of somebody's own.
        typer.Option(
            "--data",
            metavar="DIR",
            help="Where it keeps its data; a folder of the demo's own unless given.",
            show_default=False,
        ),
    ] = None,
    mem0: Annotated[
        bool | None,
        typer.Option(
            "--mem0/--no-mem0",
            help="Follow the Mem0 project of MEM0_API_KEY instead of the sample; it is only read.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """See everything at work: three people's memories in Mem0, followed, found, changed, deleted.

    Starts a stack of its own, beside any other and on data of its own, and a stand-in for Mem0's platform,
    and stops both at the end. May be repeated. Needs no account. A stack that runs on the folder of --data
    is used, and goes on running. With MEM0_API_KEY set it offers to follow that project instead, which it
    only reads.

    \b
    [dim]$[/dim] hybrid-memory demo
    [dim]$[/dim] MEM0_API_KEY=... hybrid-memory demo --mem0
    """
    from pipeline.embedded import default_data, discover

    quiet()
    if data is None:
        os.environ.update(NO_SERVERS)
    settings = read_settings()
    default = default_data()
    began = time.monotonic()
    if _wants_their_own(settings, mem0):
        own = default.with_name(f"{default.name}-mem0")
        stack = running(_follow_theirs(data or own, settings))
        question = '"..." --user ...'
    else:
        own = default.with_name(f"{default.name}-demo")
        stack = running(_demo(_sample(), data or own, own.parent / "mem0", settings))
        question = '"Which courier do we use?" --user amara'
    show()
    show(f"That was all, in {duration(time.monotonic() - began)}. To look around by yourself:")
    if discover(stack.data) is None:
        show(f"  {own_name()} up --detach --data {stack.data}")
    show(f"  {own_name()} search {question} --data {stack.data}")


def _wants_their_own(settings: "Settings", asked: bool | None) -> bool:
    """Whether a person wants their own Mem0 followed. Nobody there to ask means no."""
    if asked and not settings.watches_mem0:
        raise Refused("--mem0 follows a project of yours: set MEM0_API_KEY.")
    if asked is not None or not settings.watches_mem0:
        return bool(asked)
    if not (sys.stdin.isatty() and output().is_terminal):
        tell("MEM0_API_KEY is set, and left alone: the demo has a Mem0 of its own.", style="dim")
        return False
    return typer.confirm(
        "MEM0_API_KEY is set. Follow that project instead of the sample? It is only read",
        default=False,
    )


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


async def _demo(sample: Sample, data: Path, of_mem0: Path, settings: "Settings") -> "Stack":
    from pipeline.cli.borrowed import borrowed_stack
    from pipeline.sources.mem0_api import silence

    silence(of_mem0)
    # It takes a while, and the stack has to come up meanwhile.
    importing = asyncio.create_task(asyncio.to_thread(import_module, "mem0"))
    _step("The stack", "Kafka, Postgres, Valkey, Qdrant Edge and the stages, on this machine")
    async with borrowed_stack(data, settings) as stack:
        await importing
        kafka, prefix = settings.kafka(stack.kafka_bootstrap_servers), settings.topic_prefix
        await _only_the_demo(stack, kafka, prefix)
        async with client_of(kafka, prefix) as client:
            await _clear(client, kafka, prefix, sample)
            async with hearing(kafka, prefix) as heard:
                await _follow(client, kafka, prefix, heard, sample)
        show()
    return stack


async def _follow(
    client: "MemoryClient", kafka: "KafkaConnection", prefix: str, heard: Heard, sample: Sample
) -> None:
    from pipeline.sources.mem0 import Rules

    held = _held(sample)
    async with _mem0(held.sim) as (address, api):
        _step("Mem0", f"a stand-in for its platform at {address}, so that no account is needed")
        show(
            f"  It holds {len(held.ids)} memories of {', '.join(sample.ids)}; Hybrid Memory has none yet."
        )
        _step("Follow", "the poller publishes what it finds changed in Mem0 -> memory.events")
        opening = _opening(api)
        rules = Rules(lag_s=0.0)
        async with polling(opening, kafka, prefix, interval_s=INTERVAL_S, rules=rules) as found:
            loaded = await _arrive(found, heard)
            await _ask(client, sample, held)
            changed = await _change(client, api, found, heard, held, sample.story["revise"])
            await _delete(client, api, found, heard, held, sample.story["forget"])
            _show_hops(heard, loaded, changed)


def _held(sample: Sample) -> InMem0:
    """The sample in a stand-in, the same ids each time."""
    from pipeline.cli.mem0 import hold
    from pipeline.cli.rows import memory_of
    from pipeline.sources.mem0_sim.server import stand_in

    sim = stand_in()
    memories = [memory_of(line) for line in sample.memories.read_bytes().splitlines()]
    return InMem0(sim, {str(memory.memory_id): hold(sim, memory) for memory in memories})


@asynccontextmanager
async def _mem0(sim: "Mem0Sim") -> "AsyncGenerator[tuple[str, Mem0Api]]":
    """The stand-in behind HTTP, and Mem0's own client of it."""
    from pipeline.sources.mem0_api import opened
    from pipeline.sources.mem0_sim.server import serving

    async with serving(sim) as address, opened("demo", address, Path()) as api:
        yield address, api


def _opening(api: "Mem0Api") -> "Opening":
    return lambda: nullcontext(api)


async def _only_the_demo(stack: "Stack", kafka: "KafkaConnection", prefix: str) -> None:
    """Raises Refused where somebody's Mem0 is followed already: the demo would take the poller's place."""
    from pipeline.sources.mem0_ledger import last_cycle
    from pipeline.sources.mem0_sim.routes import PROJECT_ID

    last = await last_cycle(kafka, prefix)
    if "mem0" in stack.parts or (last and last.project_id != PROJECT_ID):
        raise Refused(
            f"The stack on {stack.data} follows a Mem0 project already. Give the demo another folder with "
            "--data."
        )


async def _clear(
    client: "MemoryClient", kafka: "KafkaConnection", prefix: str, sample: Sample
) -> None:
    """Whatever an earlier demo left: its users are forgotten, and what its poller had seen."""
    from pipeline.sources import mem0_ledger

    left = await _left(client, sample)
    if left:
        _step(
            "Clear",
            f"UserForgotten -> memory.events: what an earlier demo left of {', '.join(left)}",
        )
    for user in left:
        await (await client.forget_user(user)).stored(timeout_s=PATIENCE_S)
    async with mem0_ledger.opened(kafka, prefix) as book:
        if book.seen:
            await book.drop(list(book.seen))


async def _left(client: "MemoryClient", sample: Sample) -> list[str]:
    """The users of the sample who have memories here. Raises Refused where those are not the demo's."""
    known = {*_held(sample).ids.values(), *(id_ for ids in sample.ids.values() for id_ in ids)}
    left: list[str] = []
    for user in sample.ids:
        # A hundred is more than a user of the sample has: a memory of somebody else shows.
        answered = await client.search("memory", user_id=user, limit=100, timeout_s=PATIENCE_S)
        if strange := {hit.memory_id for hit in answered.hits} - known:
            raise Refused(
                f"This stack has memories of {user} that are not the demo's ({len(strange)} seen), and "
                "the demo would forget them. Give it another folder with --data."
            )
        left += [user] if answered.hits else []
    return left


async def _arrive(found: "Found", heard: Heard) -> Sequence[UUID]:
    """Waits until the changes of the next cycle are in both stores; their events."""
    began = time.monotonic()
    tally = await found.next()
    total = tally.total
    count = total["added"] + total["updated"] + total["deleted"]
    events = await _stored(heard, tally.by_user, count)
    took_s = time.monotonic() - began
    if total["added"]:
        show(
            f"  {count} classified, embedded, in Postgres and in the index after {duration(took_s)}: "
            f"{count / took_s:.0f}/s"
        )
    return events


async def _stored(heard: Heard, users: Collection[str | None], count: int) -> Sequence[UUID]:
    from pipeline.cli.meter import Meter

    events: Sequence[UUID] = ()
    moved_at = time.monotonic()
    # One that is changed is there before a bar is read.
    with Meter(count) if count > 1 else nullcontext() as meter:
        if meter:
            meter.accepted(count)
        while len(events) < count:
            if time.monotonic() - moved_at > PATIENCE_S:
                raise Unavailable(f"{count - len(events)} memories are not stored yet.")
            await asyncio.sleep(0.02)
            seen = heard.stored(users)
            moved_at = time.monotonic() if len(seen) > len(events) else moved_at
            events = seen
            if meter:
                meter.stored(len(events))
    heard.taken.update(events)
    return events


async def _ask(client: "MemoryClient", sample: Sample, held: InMem0) -> None:
    _step("Ask", "memory.search.asked -> the query consumer -> memory.search.answered")
    times_ms: list[float] = []
    first, among_three = 0, 0
    left_to_show = dict.fromkeys(sample.ids, SHOWN)
    for question in sample.questions:
        answered, took_ms = await _search(client, question)
        times_ms.append(took_ms)
        ids = [hit.memory_id for hit in answered.hits]
        expected = {held.ids[id_] for id_ in question["expect"]}
        first += bool(ids) and ids[0] in expected
        among_three += expected <= set(ids)
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


async def _change(
    client: "MemoryClient",
    api: "Mem0Api",
    found: "Found",
    heard: Heard,
    held: InMem0,
    story: dict[str, str],
) -> Sequence[UUID]:
    memory_id = held.ids[story["id"]]
    _step("Change in Mem0", f'update("{memory_id}", text="{story["text"]}")')
    return await _told(
        client,
        story,
        "changed",
        found,
        heard,
        lambda: api.client.update(memory_id, text=story["text"]),
    )


async def _delete(
    client: "MemoryClient",
    api: "Mem0Api",
    found: "Found",
    heard: Heard,
    held: InMem0,
    story: dict[str, str],
) -> None:
    memory_id = held.ids[story["id"]]
    _step("Delete in Mem0", f'delete("{memory_id}")')
    await _told(client, story, "deleted", found, heard, lambda: api.client.delete(memory_id))


async def _told(
    client: "MemoryClient",
    story: dict[str, str],
    what: str,
    found: "Found",
    heard: Heard,
    do: Callable[[], Awaitable[object]],
) -> Sequence[UUID]:
    """The answer before and after something is done in Mem0."""
    question = {"user_id": story["user_id"], "text": story["question"]}
    _show_question(question)
    _show_answers(*await _search(client, question))
    began = time.monotonic()
    await do()
    show(f"  it is {what} in Mem0, and the poller sees:")
    events = await _arrive(found, heard)
    show(f"  the same question, {duration(time.monotonic() - began)} later:")
    _show_answers(*await _search(client, question))
    return events


async def _follow_theirs(data: Path, settings: "Settings") -> "Stack":
    """Somebody's own project: everything that is there, a question, and what changes while they look."""
    from pipeline import app
    from pipeline.cli.borrowed import borrowed_stack
    from pipeline.sources.mem0 import Rules

    _step("The stack", "Kafka, Postgres, Valkey, Qdrant Edge and the stages, on this machine")
    async with borrowed_stack(data, settings) as stack:
        if "mem0" in stack.parts:
            raise Refused("This stack follows Mem0 already: `hybrid-memory status`.")
        kafka, prefix = settings.kafka(stack.kafka_bootstrap_servers), settings.topic_prefix
        _step("Follow", f"{settings.mem0_local or settings.mem0_host}, which is only read")
        opening = app.mem0_opening(settings)
        rules = Rules(lag_s=0.0 if settings.mem0_local else settings.mem0_replica_lag_seconds)
        async with (
            client_of(kafka, prefix) as client,
            hearing(kafka, prefix) as heard,
            polling(opening, kafka, prefix, interval_s=5.0, rules=rules) as found,
        ):
            await _until_enter(client, found, heard)
        show()
    return stack


async def _until_enter(client: "MemoryClient", found: "Found", heard: Heard) -> None:
    """Tells what each cycle finds, and asks what is asked, until an empty line."""
    show(
        "  Type `user: question` to ask about one user, Enter to end. Change something in Mem0 meanwhile."
    )
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    arriving = asyncio.create_task(_arrive(found, heard))
    try:
        while True:
            await asyncio.wait([reading, arriving], return_when=asyncio.FIRST_COMPLETED)
            if arriving.done():
                arriving.result()
                arriving = asyncio.create_task(_arrive(found, heard))
            if reading.done():
                user, _, text = reading.result().strip().partition(":")
                if not user:
                    return
                if text.strip():
                    question = {"user_id": user.strip(), "text": text.strip()}
                    _show_answers(*await _search(client, question), most=3)
                reading = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    finally:
        arriving.cancel()


def _show_hops(heard: Heard, many: Sequence[UUID], one: Sequence[UUID]) -> None:
    _step("Where the time goes", "from one topic to the next, heard on memory.stored")
    at_once, alone = heard.medians_ms(many), heard.medians_ms(one)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("  stage")
    table.add_column(f"{len(many)} at once, median", justify="right")
    table.add_column("the change alone", justify="right")
    for stage in [*(stage for stage, _ in STEPS), "searchable"]:
        cells = (f"{times[stage]:.0f} ms" if stage in times else "?" for times in (at_once, alone))
        table.add_row(f"  {stage}", *cells)
    show(table)


def _step(name: str, what: str) -> None:
    show()
    show(Text.assemble((name, "bold"), f"  {what}"))
