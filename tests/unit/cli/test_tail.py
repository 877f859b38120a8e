"""tail: a line a memory, as it is learnt."""

import json

import pytest

from pipeline.cli.printing import moment
from tests.unit.cli.conftest import NOON, Command, FakeClient, enriched, forgotten, user_forgotten


@pytest.mark.parametrize(
    ("arguments", "why"),
    [((), "--user USER, or --all"), (("--user", "alice", "--all"), "contradict each other")],
)
def test_whose_must_be_said_once(
    command: Command, client: FakeClient, arguments: tuple[str, ...], why: str
):
    result = command("tail", *arguments)
    assert result.exit_code == 2
    assert why in result.stderr


def test_each_memory_is_a_line(command: Command, client: FakeClient):
    client.passing = [enriched("I love\nThai food"), forgotten("m1")]
    result = command("tail", "--user", "alice")
    (line,) = result.stdout.splitlines()
    when = moment(NOON)
    assert line == f"{when}  alice     other: food           I love Thai food  m1"
    assert client.asked["user_id"] == "alice"
    assert client.asked["all_users"] is False


def test_the_columns_stay_whatever_a_memory_is_about(command: Command, client: FakeClient):
    abouts = [(), ("food",), ("machine learning", "version control")]
    client.passing = [
        enriched("Said", topics=topics, memory_id=f"m{n}") for n, topics in enumerate(abouts)
    ]
    lines = command("tail", "--user", "alice").stdout.splitlines()
    assert len({line.index("Said") for line in lines}) == 1
    assert [line[-2:] for line in lines] == ["m0", "m1", "m2"]


def test_what_is_forgotten_goes_by_where_it_is_asked_for(command: Command, client: FakeClient):
    client.passing = [forgotten("m1"), user_forgotten(0), user_forgotten(1)]
    lines = command("tail", "--all", "--forgotten").stdout.splitlines()
    assert [line.split("  ", 2)[2].strip() for line in lines] == ["forgot m1", "forgot everything"]


def test_json_leaves_vectors_out_unless_they_are_wanted(command: Command, client: FakeClient):
    client.passing = [enriched("a"), enriched("b")]
    told = [json.loads(line) for line in command("tail", "--all", "--json").stdout.splitlines()]
    assert [event["text"] for event in told] == ["a", "b"]
    assert "text_vector" not in told[0]
    with_them = command("tail", "--all", "--json", "--vectors").stdout.splitlines()
    assert "text_vector" in json.loads(with_them[0])
