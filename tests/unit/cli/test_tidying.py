"""Commands that put away and bring back: nothing without --yes, all of a batch and no more."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import tidying
from pipeline.cli.tidying import (
    Tidied,
    Tools,
    _consolidate,
    _prune,
    _restore,
    _show,
    _whose,
    days,
)
from pipeline.domain.clock import version_at
from pipeline.domain.pruning import Rule
from pipeline.domain.tiers import Tiers
from pipeline.errors import Refused
from pipeline.stores.memory import RecordsInMemory
from schemas.events import Lived
from tests.builders import archived, consolidated, enriched, forgotten, recalled

# pyright: reportPrivateUsage=false

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=300)
RULE = Rule(0.2, timedelta(days=90))
DAY = timedelta(days=1)


@dataclass
class Lifecycle:
    """What is published is what the stage hears, at once."""

    records: RecordsInMemory
    heard: list[Lived] = field(default_factory=list[Lived])

    async def publish(self, _: object, events: Sequence[Lived]) -> None:
        self.heard += events
        await self.records.live(events, Tiers())


@pytest.fixture
def records() -> RecordsInMemory:
    return RecordsInMemory()


def tools(records: RecordsInMemory, *, dry: bool = False) -> Tools:
    publishing: Any = None if dry else Lifecycle(records)
    return Tools(records, publishing, Tiers(), NOW)


async def tier(records: RecordsInMemory, memory_id: str, user_id: str = "alice") -> str | None:
    memory = await records.get(user_id, memory_id)
    return memory.tier if memory else None


@pytest.mark.parametrize(
    ("looked_at", "said"), [(1, "1 memory of alice"), (2_000, "2,000 memories of alice")]
)
def test_one_is_no_many(capsys: pytest.CaptureFixture[str], looked_at: int, said: str) -> None:
    tidied = Tidied("b", 9)
    tidied.looked_at = looked_at
    _show(tidied, "alice", yes=False)
    assert capsys.readouterr().out.strip() == f"Nothing to do: {said} looked at."


async def test_a_dry_run_tells_and_changes_nothing(records: RecordsInMemory) -> None:
    await records.write([enriched(memory_id="a", importance=0.1, published_at=LONG_AGO)])
    tidied = Tidied("b", 9)
    await _prune(tools(records, dry=True), tidied, "alice", RULE)
    assert tidied.counts == {"archived": 1}
    assert tidied.told[0]["unused_days"] == 300
    assert not await records.lives(None, 9)


async def test_a_prune_is_undone_by_its_batch_and_touches_nobody_else(
    records: RecordsInMemory,
) -> None:
    old: dict[str, Any] = {"importance": 0.1, "published_at": LONG_AGO}
    await records.write(
        [
            *(enriched(memory_id=f"m{n}", **old) for n in range(3)),
            enriched(memory_id="used", **old),
            enriched(memory_id="m0", user_id="bob", **old),
        ]
    )
    await records.live([recalled("used", at=NOW)], Tiers())
    await _prune(tools(records), Tidied("first", 9), "alice", RULE)
    assert [await tier(records, f"m{n}") for n in range(3)] == ["archived"] * 3
    assert await tier(records, "used") == await tier(records, "m0", "bob") == "short"
    await _prune(tools(records), Tidied("second", 9), None, RULE)
    back = Tidied("back", 9)
    await _restore(
        tools(records),
        back,
        None,
        lambda each: each.told is not None and each.told.batch == "first",
    )
    assert back.counts == {"restored": 3}
    assert await tier(records, "m0") == "short"
    assert await tier(records, "m0", "bob") == "archived"


async def test_what_says_the_same_is_archived_into_one_and_brought_back(
    records: RecordsInMemory,
) -> None:
    same = ["I love Thai food", "I really love Thai food!", "I love thai food"]
    await records.write(
        [
            *(enriched(text, memory_id=f"m{n}", version=n + 5) for n, text in enumerate(same)),
            enriched("I love thai food", memory_id="ben", speaker="Ben"),
            enriched("I love thai food", memory_id="his", user_id="bob"),
        ]
    )
    await records.live([recalled("m1", at=NOW)], Tiers())
    tidied = Tidied("b", 9)
    await _consolidate(tools(records), tidied, None, DAY)
    assert {each["memory_id"]: each["into"] for each in tidied.told} == {"m0": "m1", "m2": "m1"}
    survivor = await records.get("alice", "m1")
    assert survivor is not None
    assert (survivor.tier, survivor.consolidated) == ("short", ("m0", "m2"))
    again = Tidied("again", 9)
    await _consolidate(tools(records), again, None, DAY)
    assert not again.counts
    await _restore(tools(records), Tidied("r", 9), "alice", lambda each: each.memory_id == "m0")
    survivor = await records.get("alice", "m1")
    assert survivor is not None
    assert survivor.consolidated == ("m2",)
    assert await tier(records, "m0") == "short"


async def test_what_is_said_meanwhile_is_not_put_away(records: RecordsInMemory) -> None:
    """A revision that is on its way while the record is looked at is no old memory."""
    old: dict[str, Any] = {"version": 5, "importance": 0.1, "published_at": LONG_AGO}
    await records.write([enriched("old", memory_id="pruned", **old)])
    await records.write(
        [enriched("tea", memory_id=name, version=n) for n, name in enumerate("bs", 5)]
    )
    await _prune(tools(records), Tidied("b", 9), "alice", RULE)
    await _consolidate(tools(records), Tidied("c", 9), "alice", DAY)
    assert await tier(records, "pruned") == await tier(records, "b") == "archived"
    await records.write([enriched("anew", memory_id=name, version=7) for name in ("pruned", "b")])
    assert await tier(records, "pruned") == await tier(records, "b") == "short"


async def test_a_restore_parts_who_was_said_anew_from_who_stood_for_it(
    records: RecordsInMemory,
) -> None:
    await records.write(
        [enriched("tea", memory_id=name, version=n) for n, name in enumerate("as", 5)]
    )
    await _consolidate(tools(records), Tidied("b", 9), "alice", DAY)
    await records.write([enriched("anew", memory_id="a", version=7)])
    restored = Tidied("r", 9)
    await _restore(tools(records), restored, "alice", lambda _: True)
    assert not restored.counts
    survivor = await records.get("alice", "s")
    assert survivor is not None
    assert (survivor.tier, survivor.consolidated) == ("short", ())


async def test_a_restore_parts_who_is_named_and_not_put_away(records: RecordsInMemory) -> None:
    names = ["forgotten", "in sight", "put away", "s"]
    await records.write([enriched("tea", memory_id=name, version=5) for name in names])
    # Of these two the words that put them away never came, or came to nothing.
    word = archived("put away", reason="consolidated", into="s", version=6)
    await records.live([consolidated("s", *names[:3], version=6), word], Tiers())
    await records.write([forgotten("forgotten", version=7)])
    restored = Tidied("r", 9)
    await _restore(tools(records), restored, "alice", lambda each: each.memory_id == "s")
    survivor = await records.get("alice", "s")
    assert survivor is not None
    assert (survivor.consolidated, dict(restored.counts)) == (("put away",), {})


async def test_a_restore_comes_after_a_word_of_a_clock_that_is_ahead(
    records: RecordsInMemory,
) -> None:
    ahead = NOW + timedelta(hours=3)
    await records.write([enriched(memory_id="a", version=5)])
    word = archived("a", version=version_at(ahead), published_at=ahead, of_version=5)
    await records.live([word], Tiers())
    await _restore(tools(records), Tidied("r", 9), "alice", lambda _: True)
    assert await tier(records, "a") == "short"


async def test_who_consolidates_sees_both_texts_and_what_was_told_further_apart(
    records: RecordsInMemory, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [
        ("near", "I like tea!", 0.0),
        ("kept", "I like tea", 0.5),
        ("far", "I like  tea", -40.2),
    ]
    await records.write(
        [
            enriched(text, memory_id=name, version=n, occurred_at=NOW + when * DAY)
            for n, (name, text, when) in zip((5, 7, 6), told, strict=True)
        ]
    )
    tidied = Tidied("b", 9)
    await _consolidate(tools(records, dry=True), tidied, "alice", DAY)
    assert tidied.told == [
        {
            "user": "alice",
            "memory_id": "near",
            "text": "I like tea!",
            "into": "kept",
            "into_text": "I like tea",
        }
    ]
    _show(tidied, "alice", yes=False)
    shown = capsys.readouterr()
    assert "near  I like tea!" in shown.out
    assert "into kept  I like tea" in shown.out
    assert "1 more say the same" in shown.err
    assert "--within 41d" in shown.err
    all_of_them = Tidied("b", 9)
    await _consolidate(tools(records, dry=True), all_of_them, "alice", 41 * DAY)
    assert (all_of_them.counts.total(), all_of_them.apart) == (2, 0)


def invoked(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    @asynccontextmanager
    async def opened(_: object, *, yes: bool) -> AsyncGenerator[Tools]:
        yield tools(records, dry=not yes)

    async def done(_: object) -> None:
        pass

    def here(_: object) -> None:
        pass

    monkeypatch.setattr(tidying, "_tools", opened)
    monkeypatch.setattr(tidying, "_done", done)
    monkeypatch.setattr(tidying, "located", here)
    app = typer.Typer()
    tidying.register(app)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_a_restore_without_yes_only_tells(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(records.write([enriched(memory_id="a", version=5)]))
    asyncio.run(records.live([archived("a", version=6)], Tiers()))
    code, said = invoked(records, monkeypatch, "restore", "--user", "alice", "--all")
    assert code == 0
    assert "would be brought back" in said
    assert asyncio.run(tier(records, "a")) == "archived"
    code, said = invoked(records, monkeypatch, "restore", "--user", "alice", "--all", "--yes")
    assert code == 0
    assert asyncio.run(tier(records, "a")) == "short"


@pytest.mark.parametrize(
    "command", [("prune",), ("consolidate",), ("restore", "--all"), ("restore", "--batch", "none")]
)
def test_nothing_to_do_is_no_failure(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    code, said = invoked(records, monkeypatch, *command, "--user", "alice")
    assert code == 0
    assert "Nothing to do" in said
    assert ("no such batch" in said) == ("--batch" in command)


@pytest.mark.parametrize("wrong", ["soon", "-1d", "nan", "1e99d"])
def test_a_span_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(Refused, match="takes days"):
        days(wrong, "--unused-for")


@pytest.mark.parametrize(("user", "everybody"), [(None, False), ("alice", True)])
def test_whose_memories_must_be_said(user: str | None, everybody: bool) -> None:
    with pytest.raises(Refused, match="whose memories"):
        _whose(user, all_users=everybody)
