"""One memory at a time: remember, revise, forget, look at."""

import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.dates import optional
from pipeline.cli.memory import show_memory
from pipeline.cli.options import AsJson, AsOf, Data, MetadataPairs, Timeout, User, Wait, pairs
from pipeline.cli.patience import saying
from pipeline.cli.printing import agreed, complain, duration, show, show_json, tell
from pipeline.cli.reaching import connected, running
from pipeline.errors import Refused, Unavailable

if TYPE_CHECKING:
    from producers.receipts import AnyReceipt, Receipt, UserReceipt
    from schemas.events import Outcome
    from schemas.search import RecordedMemory

Words = Annotated[str, typer.Argument(help="The text; - reads it from standard input.")]
MemoryId = Annotated[str, typer.Argument(metavar="ID", help="Id of the memory.")]
_REMEMBERED: "Mapping[Outcome, str]" = {
    "stored": "Remembered",
    "superseded": "Not changed: something is remembered under this id or key already, and stays.",
    "forgotten": "Not remembered: this memory, or all of its user, was forgotten, and stays so. To "
    "remember it anew, leave out --id and --idempotency-key.",
}
_REVISED: "Mapping[Outcome, str]" = {
    "stored": "Revised",
    "superseded": "Not revised: a newer state of it has come in between.",
    "forgotten": "Not revised: it has been forgotten in between.",
}
_FORGOTTEN: "Mapping[Outcome, str]" = {
    "stored": "Forgotten",
    "superseded": "Not forgotten: a newer state of it has come in between. Forget it again.",
    "forgotten": "It was forgotten already.",
}
OccurredAt = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="When what it tells happened: ISO 8601, UTC unless it has an offset.",
        show_default=False,
    ),
]


def _named(about: str) -> typer.models.OptionInfo:
    return typer.Option(metavar="NAME", help=about, show_default=False)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (add, revise, forget, forget_user, get):
        app.command(rich_help_panel="Memories")(command)


def add(
    text: Words,
    user: User,
    memory_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="Made up unless given; the same id is the same memory.",
            show_default=False,
        ),
    ] = None,
    speaker: Annotated[str | None, _named("Who said it.")] = None,
    run: Annotated[str | None, _named("The conversation it is from.")] = None,
    agent: Annotated[str | None, _named("The agent that heard it.")] = None,
    app: Annotated[str | None, _named("The application it comes through.")] = None,
    occurred_at: OccurredAt = None,
    metadata: MetadataPairs = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Adding again with it changes nothing, not even what was revised or forgotten since.",
            show_default=False,
        ),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = 30.0,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Remember one text, and wait until it can be found.

    \b
    [dim]$[/dim] hybrid-memory add "I love spicy Thai food" --user alice
    [dim]$[/dim] hybrid-memory add - --user alice --metadata source=notes < note.txt
    """
    fields: dict[str, Any] = {
        "memory_id": memory_id,
        "speaker": speaker,
        "run_id": run,
        "agent_id": agent,
        "app_id": app,
        "occurred_at": optional(occurred_at, "--occurred-at"),
        "metadata": pairs(metadata),
        "idempotency_key": idempotency_key,
    }

    async def remember() -> None:
        async with connected(data) as client:
            began = time.perf_counter()
            receipt = await client.remember(_read(text), user_id=user, **fields)
            await _settle(receipt, _REMEMBERED, began, wait=wait, timeout_s=timeout, json=json)

    running(remember())


def revise(
    memory_id: MemoryId,
    text: Words,
    user: User,
    occurred_at: OccurredAt = None,
    metadata: MetadataPairs = None,
    wait: Wait = True,
    timeout: Timeout = 30.0,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Replace the text of a memory; what is not given stays as it was.

    \b
    [dim]$[/dim] hybrid-memory revise ID "I gave up spicy food" --user alice

    Ends with 1 where there is no such memory.
    """

    async def replace() -> None:
        async with connected(data) as client:
            began = time.perf_counter()
            words = _read(text)
            async with saying(
                f"Looking for {memory_id}: if it is on its way, it comes within {timeout:g} s."
            ):
                receipt = await client.revise(
                    memory_id,
                    words,
                    user_id=user,
                    metadata=pairs(metadata) if metadata else None,
                    occurred_at=optional(occurred_at, "--occurred-at"),
                    timeout_s=timeout,
                )
            await _settle(receipt, _REVISED, began, wait=wait, timeout_s=timeout, json=json)

    running(replace())


def forget(
    memory_id: MemoryId,
    user: User,
    wait: Wait = True,
    timeout: Timeout = 30.0,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Forget one memory, for good.

    Nobody finds it any more as soon as the stores have done with it. Kafka's topics keep its text for some
    time: seven to eight days, memory.enriched for up to two weeks.

    \b
    [dim]$[/dim] hybrid-memory forget ID --user alice

    Ends with 1 where there is no such memory, as `rm` does; the forgetting is accepted all the same, so
    that what is on its way stays forgotten, and whatever an `import` brings under this id. Forgetting again what was forgotten ends with 0.
    """

    async def leave() -> "Receipt":
        async with connected(data) as client:
            began = time.perf_counter()
            receipt = await client.forget(memory_id, user_id=user)
            told = _forgetting(receipt)
            await _settle(receipt, told, began, wait=wait, timeout_s=timeout, json=json)
            return receipt

    if _is_unknown(running(leave())):
        raise typer.Exit(1)


def _is_unknown(forgotten: "Receipt") -> bool:
    """Whether nobody ever heard of what was to be forgotten: a mistyped id, most likely."""
    return forgotten.found is False and not forgotten.was_forgotten


def _forgetting(receipt: "Receipt") -> "Mapping[Outcome, str]":
    """Tells where nothing is there to be erased; what to tell in the end."""
    of = f"{receipt.user_id!r} has no memory {receipt.memory_id}"
    if receipt.found:
        return _FORGOTTEN
    if receipt.found is None:
        tell("Nobody could say in time whether there is such a memory.", style="yellow")
        return _FORGOTTEN
    if receipt.was_forgotten:
        tell(f"{of} any more: its id was forgotten before. Nothing was left to erase.")
        return {**_FORGOTTEN, "stored": "It stays forgotten"}
    complain(
        f"{of}: nothing was erased. Is the id right? From now on it is a forgotten one: an `import` leaves it "
        "out. `add --id` remembers it anew."
    )
    return {**_FORGOTTEN, "stored": "What is on its way under this id stays forgotten"}


def forget_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose memories.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
    timeout: Timeout = 60.0,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Forget everything of one user, up to now and for good.

    Nobody finds any of it as soon as the stores have done with it. Kafka's topics keep the texts for some
    time: seven to eight days, memory.enriched for up to two weeks.

    \b
    [dim]$[/dim] hybrid-memory forget-user alice
    """
    if not yes:
        agreed(f"Forget everything of {user!r}, {running(_how_many(user, data))}for good?")

    async def leave() -> None:
        async with connected(data) as client:
            began = time.perf_counter()
            receipt = await client.forget_user(user)
            told = _forgetting_of_user(receipt)
            await _settle(receipt, told, began, wait=wait, timeout_s=timeout, json=json)

    running(leave())


async def _how_many(user: str, data: Path | None) -> str:
    """Of what is asked about; nothing where nobody says so in time."""
    async with connected(data) as client:
        try:
            count = await client.count(user_id=user)
        except Unavailable:
            return ""
    return "" if count is None else f"{_memories(count)}, "


def _memories(count: int) -> str:
    return f"{count:,} {'memory' if count == 1 else 'memories'}"


def _forgetting_of_user(receipt: "UserReceipt") -> "Mapping[Outcome, str]":
    """Tells where nothing is there to be erased; what to tell in the end."""
    if receipt.memories is None:
        tell("Nobody could say in time how many memories there are.", style="yellow")
        return _FORGOTTEN
    if receipt.memories:
        return {**_FORGOTTEN, "stored": f"{_memories(receipt.memories)} forgotten"}
    complain(
        f"{receipt.user_id!r} has no memories: nobody has heard of such a user, or all was forgotten "
        "before. Is the name right?"
    )
    return {**_FORGOTTEN, "stored": "What is on its way of this user stays forgotten"}


def get(
    memory_id: MemoryId,
    user: User,
    as_of: AsOf = None,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Show all that is known of a memory, as the record holds it, or as it was then.

    \b
    [dim]$[/dim] hybrid-memory get ID --user alice

    Ends with 1 where there is no such memory.
    """
    memory = running(_known(memory_id, user, data, optional(as_of, "--as-of")))
    if memory is None:
        then = " then" if as_of else ""
        complain(
            f"{user!r} has no memory {memory_id}{then}: it never was there, or it was forgotten."
        )
        raise typer.Exit(1)
    if json:
        from schemas.search import KnownMemory

        # What a hit has, too, and the same as ever.
        fields = set(KnownMemory.model_fields)
        show_json(memory.model_dump_json(include=fields, exclude_none=True))
    else:
        show_memory(memory, user)


async def _known(
    memory_id: str, user: str, data: Path | None, as_of: datetime | None
) -> "RecordedMemory | None":
    async with connected(data) as client:
        return await client.get(memory_id, user_id=user, as_of=as_of)


async def _settle(
    receipt: "AnyReceipt",
    told: "Mapping[Outcome, str]",
    began: float,
    *,
    wait: bool,
    timeout_s: float,
    json: bool,
) -> None:
    """Waits for both stores if asked to, and tells what became of it."""
    accepted_s = time.perf_counter() - began
    if not json and receipt.event.memory_id is not None and _is_about_something(receipt):
        # Before anything is waited for: what is accepted has its name, however the wait ends.
        show(receipt.event.memory_id)
    outcome: Outcome | None = None
    try:
        if wait:
            outcome = await _waited(receipt, timeout_s)
    finally:
        took_s = time.perf_counter() - began
        if json:
            show_json(_as_json(receipt, outcome, accepted_s, took_s))
    if json:
        return
    if outcome in (None, "stored"):
        stored = f"in both stores after {duration(took_s)}" if wait else "the stores follow"
        tell(f"{told['stored']}: accepted in {duration(accepted_s)}, {stored}.", style="dim")
    else:
        tell(told[outcome], style="yellow")


def _is_about_something(receipt: "AnyReceipt") -> bool:
    """Whether its id names a memory, as far as anybody knows; of a forgetting it may not."""
    return getattr(receipt, "found", None) is not False


async def _waited(receipt: "AnyReceipt", timeout_s: float) -> "Outcome":
    async with saying(f"Accepted. Waiting until both stores have it, {timeout_s:g} s at most."):
        try:
            return await receipt.stored(timeout_s=timeout_s)
        except Unavailable:
            # It is accepted: whoever types it again would make another one.
            named = f" as memory {id_}" if (id_ := receipt.event.memory_id) else ""
            tell(f"Accepted{named}: do not repeat it. Its receipt, to be asked about later:")
            tell(receipt.token)
            raise


def _as_json(
    receipt: "AnyReceipt", outcome: "Outcome | None", accepted_s: float, took_s: float
) -> dict[str, Any]:
    from producers.receipts import UserReceipt

    of_user = {"memories": receipt.memories} if isinstance(receipt, UserReceipt) else {}
    return {
        "memory_id": receipt.event.memory_id,
        "event_id": str(receipt.event_id),
        "version": receipt.version,
        "receipt": receipt.token,
        "stored": outcome == "stored",
        "outcome": outcome,
        "accepted_ms": round(accepted_s * 1_000, 1),
        "took_ms": round(took_s * 1_000, 1),
        **of_user,
    }


def _read(text: str) -> str:
    if text != "-":
        return text
    try:
        read = sys.stdin.read()
        read.encode()  # in some locales, what cannot be read is passed on in disguise
    except UnicodeError as error:
        raise Refused(
            "What comes on standard input is not UTF-8. Convert it first, as with `iconv -f latin1 -t utf-8`."
        ) from error
    return read.rstrip("\n")
