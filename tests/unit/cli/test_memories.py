"""add, revise, forget, forget-user, get."""

import json as jsonlib
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from types import SimpleNamespace

import pytest

from pipeline.cli import memories
from pipeline.cli.printing import moment
from schemas.events import Outcome, Said
from tests.unit.cli.conftest import NOON, Command, FakeClient


def test_adding_prints_the_id_and_waits(command: Command, client: FakeClient):
    result = command(
        "add",
        "I love Thai food",
        "--user=alice",
        "--occurred-at=2025-01-01 10:00",
        "--metadata=n=3",
        "--metadata=source=chat",
        "--run=r1",
    )
    assert result.exit_code == 0
    ((key, memory),) = client.memories.items()
    assert result.stdout.strip() == key[1]
    assert "in both stores" in result.stderr
    assert memory.metadata == {"n": 3, "source": "chat"}
    assert memory.occurred_at == datetime(2025, 1, 1, 10, tzinfo=UTC)
    assert memory.run_id == "r1"
    assert [receipt.event.memory_id for receipt in client.waited_for] == [key[1]]


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_text_in_another_encoding_is_refused_in_words_of_ours(
    command: Command, client: FakeClient, monkeypatch: pytest.MonkeyPatch, errors: str
):
    latin = TextIOWrapper(BytesIO(b"caf\xe9 au lait"), "utf-8", errors)
    with monkeypatch.context() as patch:
        patch.setattr(memories, "sys", SimpleNamespace(stdin=latin))
        result = command("add", "-", "--user", "alice")
    assert result.exit_code == 2
    assert "standard input is not UTF-8. Convert it" in result.stderr
    assert client.memories == {}


def test_json_is_one_object_and_nothing_else(command: Command, client: FakeClient):
    result = command("add", "hi", "-u", "alice", "--json", "--no-wait")
    told = jsonlib.loads(result.stdout)
    assert told["stored"] is False
    assert jsonlib.loads(told["receipt"])["memory_id"] == told["memory_id"]
    assert client.waited_for == []


@pytest.mark.parametrize("json", [False, True])
def test_a_wait_that_ends_early_does_not_hide_what_was_accepted(
    command: Command, client: FakeClient, json: bool
):
    client.is_late = True
    result = command("add", "hi", "-u", "alice", "--id", "m1", *(["--json"] if json else []))
    assert result.exit_code == 75
    if json:
        told = jsonlib.loads(result.stdout)
        assert (told["memory_id"], told["stored"], told["outcome"]) == ("m1", False, None)
    else:
        assert result.stdout.strip() == "m1"
    (receipt,) = client.waited_for
    assert receipt.token in result.stderr


@pytest.mark.parametrize(
    ("outcome", "told"), [("superseded", "Not changed"), ("forgotten", "Not remembered")]
)
def test_what_is_accepted_and_will_not_be_found_is_told(
    command: Command, client: FakeClient, outcome: Outcome, told: str
):
    client.outcomes = {"m1": outcome}
    assert told in command("add", "hi", "-u", "alice", "--id", "m1").stderr
    as_json = command("add", "hi", "-u", "alice", "--id", "m1", "--json").stdout
    assert jsonlib.loads(as_json)["outcome"] == outcome


def test_a_dash_reads_standard_input(command: Command, client: FakeClient):
    command("add", "-", "--user", "alice", stdin="two\nlines\n")
    assert [memory.text for memory in client.memories.values()] == ["two\nlines"]


def test_metadata_without_a_value_is_refused(command: Command, client: FakeClient):
    result = command("add", "hi", "--user", "alice", "--metadata", "oops")
    assert result.exit_code == 2
    assert "KEY=VALUE" in result.stderr
    assert client.memories == {}


def test_a_memory_in_the_dead_letters_is_told(command: Command, client: FakeClient):
    client.set_aside = {"m1": "It went to the dead letters at embedder: no vector"}
    result = command("add", "hi", "--user", "alice", "--id", "m1")
    assert result.exit_code == 65
    assert "dead letters at embedder" in result.stderr


def test_revising_and_getting(command: Command, client: FakeClient):
    command("add", "old", "--user", "alice", "--id", "m1")
    assert command("revise", "m1", "new", "--user", "alice").exit_code == 0
    assert "new" in command("get", "m1", "--user", "alice").stdout
    assert jsonlib.loads(command("get", "m1", "-u", "alice", "--json").stdout)["text"] == "new"


def test_getting_shows_all_that_is_known(command: Command, client: FakeClient):
    client.known = {
        "published_at": NOON,
        "version": 1769860800000000,
        "topics": ("food", "travel"),
        "importance": 0.625,
        "tier": "archived",
        "into": "m7",
        "consolidated": ("m2", "m3"),
        "preceding": (Said(text="What\ndo you\x1b[2J like?", speaker="Ben"), Said(text="Well.")),
    }
    given = ["--speaker=Ana", "--run=r1", "--agent=a1", "--app=chat", "-m", "n=[1]", "-m", "s=t u"]
    command("add", "Thai food.\nSpicy!", "-u", "alice", "--id", "m1", *given)
    shown = command("get", "m1", "-u", "alice").stdout
    text, _, rest = shown.partition("\n\n")
    assert text == "Thai food.\nSpicy!"
    assert [(line[2:13].strip(), line[14:]) for line in rest.splitlines()] == [
        ("id", "m1"),
        ("user", "alice"),
        ("speaker", "Ana"),
        ("occurred", moment(NOON)),
        ("published", f"{moment(NOON)}, version 1769860800000000"),
        ("domain", "other"),
        ("topics", "food, travel"),
        ("importance", "0.62"),
        ("tier", "archived, consolidated into m7"),
        ("stands for", "m2, m3"),
        ("run", "r1"),
        ("agent", "a1"),
        ("app", "chat"),
        ("metadata", "n = [1]"),
        ("", "s = t u"),
        ("before it", "Ben: What do you\N{REPLACEMENT CHARACTER}[2J like?"),
        ("", "Well."),
    ]


def test_programs_are_told_of_a_memory_what_they_ever_were(command: Command, client: FakeClient):
    command("add", "hi", "-u", "alice", "--id", "m1")
    before = command("get", "m1", "-u", "alice", "--json").stdout
    client.known = {"published_at": NOON, "importance": 0.5, "preceding": (Said(text="Well."),)}
    assert command("get", "m1", "-u", "alice", "--json").stdout == before


def test_getting_what_it_was_then(command: Command, client: FakeClient):
    command("add", "hi", "--user", "alice", "--id", "m1")
    assert "hi" in command("get", "m1", "--user", "alice", "--as-of", "2026-05-01").stdout
    assert client.as_of == datetime(2026, 5, 1, tzinfo=UTC)
    result = command("get", "m2", "--user", "alice", "--as-of", "2026-05-01")
    assert (result.exit_code, "no memory m2 then" in result.stderr) == (1, True)
    result = command("get", "m1", "--user", "alice", "--as-of", "once")
    assert (result.exit_code, "--as-of" in result.stderr) == (2, True)


@pytest.mark.parametrize("words", [("get",), ("forget",), ("revise", "new")])
def test_an_id_that_nobody_knows_ends_every_command_alike(
    command: Command, client: FakeClient, words: tuple[str, ...]
):
    name, *text = words
    result = command(name, "m1", *text, "--user", "alice")
    assert (result.exit_code, "no memory m1" in result.stderr) == (1, True)


def test_forgetting_one(command: Command, client: FakeClient):
    command("add", "hi", "--user", "alice", "--id", "m1")
    forgetting = command("forget", "m1", "--user", "alice")
    assert (forgetting.exit_code, "has no memory" in forgetting.stderr) == (0, False)
    again = command("forget", "m1", "--user", "alice")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "its id was forgotten before. Nothing was left to erase." in again.stderr
    gone = command("get", "m1", "--user", "alice")
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert "no memory m1" in gone.stderr


def test_forgetting_what_nobody_knows_is_accepted_and_told(command: Command, client: FakeClient):
    unknown = command("forget", "m1", "--user", "alice")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    first, second = unknown.stderr.splitlines()
    assert first.startswith(
        "'alice' has no memory m1: nothing was erased. Is the id right? From now"
    )
    assert "an `import` leaves it out. `add --id` remembers it anew." in first
    assert second.startswith("What is on its way under this id stays forgotten: accepted in")
    assert "Forgotten:" not in unknown.stderr


def test_forgetting_what_nobody_knows_tells_programs_the_same_as_ever(
    command: Command, client: FakeClient
):
    command("add", "hi", "-u", "alice", "--id", "m1")
    known = jsonlib.loads(command("forget", "m1", "-u", "alice", "--json").stdout)
    unknown = command("forget", "m2", "-u", "alice", "--json")
    told = jsonlib.loads(unknown.stdout)
    assert unknown.exit_code == 1
    assert told.keys() == known.keys()
    assert (told["memory_id"], told["stored"], told["outcome"]) == ("m2", True, "stored")
    assert jsonlib.loads(told["receipt"]).keys() == jsonlib.loads(known["receipt"]).keys()
    assert jsonlib.loads(told["receipt"])["found"] is False


def test_forgetting_a_user_asks_first(command: Command, client: FakeClient):
    command("add", "hi", "--user", "alice")
    asked = command("forget-user", "alice", stdin="n\n")
    assert asked.exit_code == 1
    assert "Forget everything of 'alice', 1 memory, for good?" in asked.stderr
    assert len(client.memories) == 1
    done = command("forget-user", "alice", "--yes")
    assert done.exit_code == 0
    assert "1 memory forgotten: accepted" in done.stderr
    assert client.memories == {}


def test_a_user_nobody_knows_is_said_to_be_none(command: Command, client: FakeClient):
    result = command("forget-user", "nobodyhere", "--yes")
    assert result.exit_code == 0
    assert "'nobodyhere' has no memories: nobody has heard of such a user" in result.stderr
    told = command("forget-user", "nobodyhere", "--yes", "--json").stdout
    assert jsonlib.loads(told)["memories"] == 0


def test_without_an_answer_nobody_is_forgotten(command: Command, client: FakeClient):
    command("add", "hi", "--user", "alice")
    nobody = command("forget-user", "alice", stdin="")
    assert nobody.exit_code == 2
    assert "Say --yes to do it without asking." in nobody.stderr
    assert len(client.memories) == 1


def test_another_users_memory_is_not_shown(command: Command, client: FakeClient):
    command("add", "hi", "--user", "alice", "--id", "m1")
    assert command("get", "m1", "--user", "bob").exit_code == 1


def test_a_memory_does_not_reach_the_terminal_as_commands(command: Command, client: FakeClient):
    text = "thai \x1b[2Jfood [bold]x[/bold]\nnext"
    command("add", text, "-u", "alice", "--id", "m1", "--metadata=a\x1b[1m=b\x9b2J")
    shown = command("get", "m1", "-u", "alice").stdout
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "[bold]x[/bold]\nnext" in shown
