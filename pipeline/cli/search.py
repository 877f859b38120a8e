"""Ask for the memories of one user that are closest to a text, and see where the time went."""

import time
from collections.abc import Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.dates import optional, span
from pipeline.cli.options import AsJson, AsOf, Data, MetadataPairs, Timeout, User, pairs
from pipeline.cli.printing import moment, on_one_line, show, show_json, tell
from pipeline.cli.reaching import connected, running
from pipeline.errors import PipelineError, Refused

if TYPE_CHECKING:
    from datetime import datetime

    from schemas.filters import Where
    from schemas.search import Hit, NamedTime, SearchAnswered

MOST_NAMES = 10
"""Of speakers, in a hint."""
_MOST_HITS = 100
"""As many as a search may give."""


def _only(of: str) -> typer.models.OptionInfo:
    return typer.Option(metavar="NAME", help=f"Only {of}.", show_default=False)


def register(app: typer.Typer) -> None:
    """Adds `search`."""
    app.command(rich_help_panel="Memories")(search)


def search(
    text: Annotated[str, typer.Argument(help="What to look for, in any words.")],
    user: User,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100, help="Memories at most.")
    ] = 10,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=-1, max=1, help="Leave out hits that score lower than this.", show_default=False
        ),
    ] = None,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"],
        typer.Option(
            metavar="MODE",
            help="hybrid finds by meaning and words, dense by meaning alone, lexical by words alone.",
        ),
    ] = "hybrid",
    rerank: Annotated[
        bool | None,
        typer.Option(
            "--rerank/--no-rerank",
            help="Have the best read again with the question; as RERANKER_MODEL is set, otherwise.",
            show_default=False,
        ),
    ] = None,
    diversity: Annotated[
        float, typer.Option(min=0, max=1, help="Prefer hits unlike the better ones.")
    ] = 0.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell what speaks for each hit.")
    ] = False,
    classifiers: Annotated[
        bool,
        typer.Option(
            "--classifiers/--no-classifiers", help="Let topics and importance count, where weighed."
        ),
    ] = True,
    as_of: AsOf = None,
    domain: Annotated[
        Literal["coding", "business", "other"] | None,
        typer.Option(
            metavar="DOMAIN", help="Only about this: coding, business or other.", show_default=False
        ),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOPIC", help="Any of these; `docs topics` lists them.", show_default=False
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Happened then or later.", show_default=False),
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Happened earlier.", show_default=False)
    ] = None,
    speaker: Annotated[str | None, _only("what this one said; a name as it is written")] = None,
    run: Annotated[str | None, _only("from this conversation")] = None,
    agent: Annotated[str | None, _only("through this agent")] = None,
    app: Annotated[str | None, _only("through this application")] = None,
    tier: Annotated[
        Literal["short", "medium", "long", "archived"] | None,
        typer.Option(
            metavar="TIER",
            help="Only of this one: short, medium, long or archived; all but archived unless given.",
            show_default=False,
        ),
    ] = None,
    metadata: MetadataPairs = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="JSON",
            help='Conditions that nest: {"or": [{"speaker": "Ana"}, {"metadata": {"stars": {"gte": 4}}}]}.',
            show_default=False,
        ),
    ] = None,
    recall: Annotated[
        bool,
        typer.Option(
            "--recall/--no-recall", help="Count the best hits as recalled: they may rise."
        ),
    ] = True,
    timeout: Timeout = 10.0,
    json: AsJson = False,
    data: Data = None,
) -> None:
    """Search the memories of one user.

    \b
    [dim]$[/dim] hybrid-memory search "dinner ideas" --user alice
    [dim]$[/dim] hybrid-memory search "flaky tests" --user alice --domain coding --after 2025-06-01
    [dim]$[/dim] hybrid-memory search "what did Ana plan in May?" --user alice --explain
    [dim]$[/dim] hybrid-memory search "dinner" --user alice --filter '{"not": {"topics": ["meetings", "travel"]}}'
    """
    since, until = span(after, before, ("--after", "--before"))
    filter_: dict[str, Any] = {
        "domain": domain,
        "topics": tuple(topic or ()),
        "occurred_from": since,
        "occurred_until": until,
        "speaker": speaker,
        "run_id": run,
        "agent_id": agent,
        "app_id": app,
        "tiers": (tier,) if tier else (),
        "metadata": pairs(metadata),
        "where": nested(where),
    }
    then = optional(as_of, "--as-of")
    answered, took_s = running(
        _asked(
            data,
            text,
            user_id=user,
            limit=limit,
            min_score=min_score,
            filter=filter_,
            mode=mode,
            rerank=rerank,
            diversity=diversity,
            explain=explain,
            recall=recall,
            use_classifiers=classifiers,
            as_of=then,
            timeout_s=timeout,
        )
    )
    if json:
        show_json(answered.model_dump_json(exclude_none=True))
        return
    if answered.hits:
        show(table(answered.hits))
        if answered.times:
            tell(
                f"Times read in the question: {'; '.join(map(read_as, answered.times))}.",
                style="dim",
            )
    else:
        show(nothing_found(user, as_of, min_score))
    if speaker and not answered.hits:
        there = running(_speakers(data, text, user, filter_, then, timeout))
        if hint := others_spoke(speaker, there):
            tell(hint, style="yellow")
    if unknown := strange([*(topic or ()), *topics_in(filter_["where"])]):
        # No refusal: an application may have classified with topics of its own, or an older list.
        tell(
            f"The classifier here knows no topic {', '.join(map(repr, unknown))}. `hybrid-memory docs "
            "topics` lists those that there are.",
            style="yellow",
        )
    if answered.degraded:
        tell(f"The answer is {on_one_line(answered.degraded)}.", style="yellow")
    tell(times(answered, took_s), style="dim")


def read_as(named: "NamedTime") -> str:
    """A time that was read in the question, in words."""
    from pipeline.domain.wording import day_in_words

    first, last = named.since, named.until - timedelta.resolution
    if named.since.year == MINYEAR:
        return f"until {day_in_words(last)}"
    if last.year == MAXYEAR:
        return f"from {day_in_words(first)} on"
    one = first.date() == last.date()
    days = day_in_words(first) if one else f"{day_in_words(first)} to {day_in_words(last)}"
    return f"{days}, or then in another year" if named.every_year else days


def nothing_found(user: str, as_of: str | None, min_score: float | None = None) -> str:
    """What is said instead of hits."""
    well = "" if min_score is None else f" so well: --min-score wants {min_score:g} or more"
    if as_of is None:
        return f"Nothing found: {user!r} has no memory that fits{well}."
    return (
        f"Nothing found: of {user!r} nothing had been published by {as_of} that fits{well}. That is what "
        "--as-of asks; --after and --before ask when something happened."
    )


def nested(given: str | None) -> "Where | None":
    """The filter that a JSON text is. Raises Refused, naming what is wrong with it and where."""
    from pydantic import ValidationError

    from pipeline.domain.telling import told
    from schemas.filters import Where

    if given is None:
        return None
    try:
        return Where.model_validate_json(given)
    except ValidationError as error:
        raise Refused(told(error, "--filter")) from error


def strange(topics: Sequence[str]) -> list[str]:
    """Those of the topics that our classifier never gives, in order, each once."""
    from pipeline.cli.docs import known_topics

    known = {told["topic"] for told in known_topics()} if topics else set[str]()
    return [topic for topic in dict.fromkeys(topics) if topic not in known]


def topics_in(where: "Where | None") -> list[str]:
    """All topics that conditions name, at whatever depth."""
    if where is None:
        return []
    tests = where.topics
    here = [tests.eq, tests.ne, *(tests.in_ or ()), *(tests.not_in or ())] if tests else []
    below = (*(where.and_ or ()), *(where.or_ or ()), *([where.not_] if where.not_ else ()))
    return [*filter(None, here), *(topic for each in below for topic in topics_in(each))]


async def _asked(data: Path | None, text: str, **question: Any) -> "tuple[SearchAnswered, float]":
    async with connected(data) as client:
        began = time.perf_counter()
        answered = await client.search(text, **question)
        return answered, time.perf_counter() - began


async def _speakers(
    data: Path | None,
    text: str,
    user: str,
    filter_: Mapping[str, Any],
    as_of: "datetime | None",
    timeout_s: float,
) -> list[str]:
    """Who said what is closest to the text and meets the rest of the filter, in that order; each once."""
    asked: dict[str, Any] = {"filter": {**filter_, "speaker": None}, "as_of": as_of}
    try:
        answered, _ = await _asked(
            data,
            text,
            user_id=user,
            limit=_MOST_HITS,
            mode="dense",
            rerank=False,
            recall=False,
            timeout_s=timeout_s,
            **asked,
        )
    except PipelineError:
        # It is only a hint: the answer itself is there.
        return []
    return list(dict.fromkeys(hit.speaker for hit in answered.hits if hit.speaker))


def others_spoke(speaker: str, there: Sequence[str]) -> str | None:
    """What to say where nobody of this name said anything; None where it helps nobody.

    The same name in another case comes first.
    """
    names = sorted(there, key=lambda name: name.casefold() != speaker.casefold())
    if not names or speaker in names:
        return None
    told = ", ".join(on_one_line(name, 40) for name in names[:MOST_NAMES])
    more = " and others" if len(names) > MOST_NAMES else ""
    return f"--speaker takes a name as it is written. Speakers here: {told}{more}."


def table(hits: "tuple[Hit, ...]") -> Table:
    """The hits, best first: what was said, and below it where it stands. An id stays on one line."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column("score", justify="right", style="green")
    made.add_column("memory", overflow="fold")
    for hit in hits:
        known = (moment(hit.occurred_at), about(hit), on_one_line(hit.memory_id))
        said = Text(on_one_line(hit.text, 400))
        said.append("\n" + "  ".join(known), "dim")
        if hit.signals:
            said.append("\n" + why(hit), "cyan")
        made.add_row(f"{hit.score:.3f}", said)
    return made


def why(hit: "Hit") -> str:
    """What speaks for a hit: what each signal adds to the score and, in brackets, what it gave.

    The reranker comes after, which changed the order alone, then the words that matched, and where: in what was
    said and by whom, in its day, or only in what was said beside it. What has no weight is left out: `--json` has it.
    """
    told = [
        f"{name} {part:+.3f} ({hit.signals.get(name, 0.0):.2f})"
        for name, part in sorted(hit.parts.items(), key=lambda one: -one[1])
    ]
    if "rerank" in hit.signals:
        told.append(f"rerank ({hit.signals['rerank']:.2f})")
    return "  ".join([*told, *matches(hit)])


def matches(hit: "Hit") -> list[str]:
    """Which words of the question matched, and where, as far as the hit tells."""
    own = {"words": hit.matched, "day": hit.matched_day}
    told = [f"{name}: {on_one_line(', '.join(words))}" for name, words in own.items() if words]
    if not told and hit.parts.get("lexical", 0.0) > 0:
        return ["words of what was said beside it"]
    return told


def about(hit: "Hit") -> str:
    """What a memory is about: its domain, and its topics."""
    return on_one_line(": ".join(filter(None, [hit.domain, ", ".join(hit.topics)])))


def times(answered: "SearchAnswered", took_s: float) -> str:
    """Where the time of a search went. A client's first one includes finding where to listen."""
    reread = f", reranked in {answered.rerank_ms:.1f} ms" if answered.rerank_ms else ""
    return (
        f"{took_s * 1_000:.0f} ms over Kafka and back, {answered.took_ms:.0f} ms of them in the query "
        f"consumer:\nquestion embedded in {answered.embed_ms:.1f} ms, index searched in "
        f"{answered.search_ms:.1f} ms{reread}"
    )
