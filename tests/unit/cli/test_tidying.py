"""Commands that put away and bring back: nothing without --yes, and told so that one can judge."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import tidying
from pipeline.cli.tidying import _show, _whose, days
from pipeline.domain.tiers import Tiers
from pipeline.errors import Refused
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.tidying.looking import Tidied, Tools
from tests.builders import archived, enriched
from tests.unit.tidying.lifecycle import tier, tools

# pyright: reportPrivateUsage=false


@pytest.fixture
def records() -> RecordsInMemory:
    return RecordsInMemory()


@pytest.mark.parametrize(
    ("looked_at", "said"), [(1, "1 memory of alice"), (2_000, "2,000 memories of alice")]
)
def test_one_is_no_many(capsys: pytest.CaptureFixture[str], looked_at: int, said: str) -> None:
    tidied = Tidied("b", 9)
    tidied.looked_at = looked_at
    _show(tidied, [], "alice", yes=False)
    assert capsys.readouterr().out.strip() == f"Nothing to do: {said} looked at."


def test_a_text_is_shown_on_one_line_and_no_longer_than_that(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [f"I said\n{'tea ' * 50}{end}" for end in ("", "!")]
    asyncio.run(
        records.write(
            [enriched(text, memory_id=f"m{n}", version=n + 5) for n, text in enumerate(same)]
        )
    )
    code, said = invoked(records, monkeypatch, "consolidate", "--user", "alice")
    assert code == 0
    assert "m0  I said tea tea" in said
    assert "into m1  I said tea tea" in said
    assert said.count("…") == 2


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


def test_what_was_told_further_apart_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    tidied = Tidied("b", 9, apart=1, apart_days=41)
    _show(tidied, [], "alice", yes=False)
    told = capsys.readouterr().err
    assert "1 more say the same" in told
    assert "--within 41d" in told


@pytest.mark.parametrize(
    "command", [("prune",), ("consolidate",), ("restore", "--all"), ("restore", "--batch", "none")]
)
def test_nothing_to_do_is_no_failure(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    code, said = invoked(records, monkeypatch, *command, "--user", "alice")
    assert code == ("--batch" in command), "a batch that nobody knows is mistyped"
    assert "Nothing to do" in said
    assert ("no such batch" in said) == ("--batch" in command)


def test_an_id_that_cannot_be_brought_back_is_told(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(records.write([enriched(memory_id=name, version=5) for name in ("away", "here")]))
    asyncio.run(records.live([archived("away", version=6)], Tiers()))
    ids = ("away", "here", "nope")
    code, said = invoked(records, monkeypatch, "restore", *ids, "--user", "alice", "--limit", "0")
    assert code == 1
    assert "1 of 2 memories of alice would be brought back." in said
    assert "no such memory: nope." in said
    assert "nothing to bring back: here." in said
    code, _ = invoked(records, monkeypatch, "restore", "here", "--user", "alice")
    assert code == 0, "it is where it was wanted"


def test_a_prune_of_nothing_names_its_limits(
    records: RecordsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, said = invoked(records, monkeypatch, "prune", "--user", "alice", "--unused-for", "180d")
    assert "below 0.2 in importance and strength" in said
    assert "not used for 180 days" in said


@pytest.mark.parametrize("wrong", ["90", "1s", "soon", "-1d", "nan", "1e99d"])
def test_a_span_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(Refused, match="takes days"):
        days(wrong, "--unused-for")


@pytest.mark.parametrize(("user", "everybody"), [(None, False), ("alice", True)])
def test_whose_memories_must_be_said(user: str | None, everybody: bool) -> None:
    with pytest.raises(Refused, match="whose memories"):
        _whose(user, all_users=everybody)
