"""search: what is asked, and how the answer looks."""

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from pipeline.cli.search import others_spoke, read_as, table, why
from pipeline.searching.search import named_times
from schemas.filters import Where
from schemas.search import Hit, ReplyTo, SearchAnswered, SearchAsked
from tests.unit.cli.conftest import Command, FakeClient


def test_hits_are_shown_with_their_score_and_the_time_told(command: Command, client: FakeClient):
    command("add", "I love spicy Thai food", "--user", "alice", "--id", "m1")
    result = command("search", "thai", "--user", "alice")
    assert result.exit_code == 0
    for shown in ("0.500", "I love spicy Thai food", "food", "m1"):
        assert shown in result.stdout
    assert "question embedded in 3.0 ms, index searched in 1.0 ms" in result.stderr


def test_nothing_found_is_said(command: Command, client: FakeClient):
    result = command("search", "anything", "--user", "alice")
    assert result.exit_code == 0
    assert "Nothing found: 'alice' has no memory that fits." in result.stdout


@pytest.mark.parametrize("then", [(), ("--as-of", "2026-03-10")])
def test_a_limit_that_nothing_reaches_is_named(
    command: Command, client: FakeClient, then: tuple[str, ...]
):
    result = command("search", "anything", "--user", "alice", "--min-score", "0.99", *then)
    told = " ".join(result.stdout.split())
    assert "that fits so well: --min-score wants 0.99 or more." in told


def test_nothing_found_in_the_past_tells_what_was_asked(command: Command, client: FakeClient):
    result = command("search", "anything", "--user", "alice", "--as-of", "2026-03-10")
    told = " ".join(result.stdout.split())
    assert "of 'alice' nothing had been published by 2026-03-10 that fits." in told
    assert "--after and --before ask when something happened" in told


def test_filters_go_with_the_question(command: Command, client: FakeClient):
    command(
        "search",
        "tests",
        "--user=alice",
        "--limit=3",
        "--min-score=0.2",
        "--domain=coding",
        "--topic=python",
        "--topic=testing",
        "--after=2025-01-01",
        "--before=2025-02-01T00:00:00+01:00",
        "--metadata=n=3",
        "--speaker=Bob",
    )
    asked = client.searched[0]
    assert (asked["limit"], asked["min_score"]) == (3, 0.2)
    assert asked["filter"]["domain"] == "coding"
    assert asked["filter"]["topics"] == ("python", "testing")
    assert asked["filter"]["occurred_from"] == datetime(2025, 1, 1, tzinfo=UTC)
    assert asked["filter"]["occurred_until"] == datetime(2025, 1, 31, 23, tzinfo=UTC)
    assert asked["filter"]["metadata"] == {"n": 3}
    assert asked["filter"]["speaker"] == "Bob"


def test_a_filter_that_nests_is_written_as_json(command: Command, client: FakeClient):
    asked = '{"or": [{"speaker": "Ana"}, {"metadata": {"stars": {"gte": 4}}}]}'
    command("search", "tests", "--user=alice", "--filter", asked, "--speaker=Bob")
    assert client.searched[0]["filter"]["where"] == Where.model_validate_json(asked)
    assert client.searched[0]["filter"]["speaker"] == "Bob"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (
            '{"or": [{"speeker": "Ana"}]}',
            "--filter.or.0: 'speeker' is not known here: there are and",
        ),
        (
            '{"or": [{"occurred_from": "2026-03-10"}]}',
            """--filter.or.0: 'occurred_from' is not known here: write {"occurred_at": {"gte": ...}}""",
        ),
        ("{", "--filter: "),
        ("[]", "--filter: must be an object"),
    ],
)
def test_a_filter_that_is_wrong_is_refused_with_the_place(
    command: Command, client: FakeClient, asked: str, why: str
):
    result = command("search", "tests", "--user=alice", "--filter", asked)
    assert result.exit_code == 2
    assert why in result.stderr


def test_json_is_the_answer(command: Command, client: FakeClient):
    command("add", "thai food", "--user", "alice", "--id", "m1")
    answer = json.loads(command("search", "thai", "--user", "alice", "--json").stdout)
    assert [hit["memory_id"] for hit in answer["hits"]] == ["m1"]
    assert answer["embed_ms"] == 3.0


def test_a_strangers_text_does_not_reach_the_terminal_as_commands(
    command: Command, client: FakeClient
):
    command("add", "thai \x1b[2Jfood [bold]x[/bold]\nnext", "--user", "alice")
    shown = command("search", "thai", "--user", "alice").stdout
    assert "\x1b" not in shown
    assert "[bold]x[/bold] next" in shown


def test_a_search_without_a_user_is_refused(command: Command, client: FakeClient):
    assert command("search", "thai").exit_code == 2


def test_a_date_that_is_not_certain_is_refused(command: Command, client: FakeClient):
    result = command("search", "thai", "--user", "alice", "--after", "yesterday")
    assert result.exit_code == 2
    assert "no date that can be relied on" in result.stderr


@pytest.mark.parametrize("width", [60, 80, 120])
def test_an_id_is_never_broken(command: Command, client: FakeClient, width: int):
    memory_id = str(UUID(int=7))
    command("add", "thai food and many words more " * 5, "--user", "alice", "--id", memory_id)
    hits = command("search", "thai", "--user", "alice", "--json").stdout
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table(SearchAnswered.model_validate_json(hits).hits))
    assert memory_id in captured.get()


@pytest.mark.parametrize(
    "named",
    [
        ["--topic", "cuisine", "--topic", "food"],
        ["--filter", '{"or": [{"topics": ["food"]}, {"not": {"topics": "cuisine"}}]}'],
    ],
)
def test_a_topic_that_the_classifier_does_not_know_is_told(
    command: Command, client: FakeClient, named: list[str]
):
    command("add", "thai food", "--user", "alice")
    result = command("search", "thai", "--user", "alice", *named)
    assert result.exit_code == 0
    assert "The classifier here knows no topic 'cuisine'." in result.stderr
    assert "hybrid-memory docs topics" in result.stderr


def test_a_speaker_who_said_nothing_brings_those_who_did(command: Command, client: FakeClient):
    for text, speaker in (("thai food", "Ben"), ("soup", "Ana"), ("more soup", "Ana")):
        command("add", text, "--user", "alice", "--speaker", speaker)
    result = command("search", "thai", "--user", "alice", "--speaker", "ana", "--topic", "food")
    assert result.exit_code == 0
    assert "takes a name as it is written. Speakers here: Ana, Ben." in result.stderr
    assert (client.asked["filter"]["topics"], client.asked["recall"]) == (("food",), False)


@pytest.mark.parametrize("named", [("--speaker=Ana",), ("--speaker=ana", "--json"), ()])
def test_speakers_are_told_where_that_may_help_alone(
    command: Command, client: FakeClient, named: tuple[str, ...]
):
    command("add", "soup", "--user", "alice", "--speaker", "Ana")
    assert "Speakers here" not in command("search", "thai", "--user", "alice", *named).stderr


def test_of_many_speakers_some_are_told():
    hint = others_spoke("z9", [f"Z{n}" for n in range(20)])
    assert hint is not None
    assert "Speakers here: Z9, Z0, Z1," in hint
    assert hint.endswith("Z8 and others.")
    assert others_spoke("ana", []) is None


def test_topics_that_are_known_are_not_worth_a_word(command: Command, client: FakeClient):
    result = command("search", "thai", "--user", "alice", "--topic", "machine learning")
    assert "docs topics" not in result.stderr


def test_reranking_and_diversity_go_with_the_question(command: Command, client: FakeClient):
    command("search", "thai", "--user", "alice")
    assert (client.asked["rerank"], client.asked["diversity"]) == (None, 0.0)
    command("search", "thai", "--user", "alice", "--rerank", "--diversity", "0.3")
    assert (client.asked["rerank"], client.asked["diversity"]) == (True, 0.3)
    command("search", "thai", "--user", "alice", "--no-rerank")
    assert client.asked["rerank"] is False


def test_what_could_not_be_done_is_told(command: Command, client: FakeClient):
    client.degraded = "not reranked: the model failed"
    result = command("search", "thai", "--user", "alice")
    assert result.exit_code == 0
    assert "not reranked: the model failed" in result.stderr


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("on 8 May 2026", "8 May 2026"),
        ("from 3 to 5 May 2026", "3 May 2026 to 5 May 2026"),
        ("before 8 May 2026", "until 7 May 2026"),
        ("after 8 May 2026", "from 9 May 2026 on"),
        ("from 3 to 5 May", "3 May 2026 to 5 May 2026, or then in another year"),
    ],
)
def test_a_time_that_was_read_is_told_in_words(question: str, told: str):
    asked = SearchAsked(
        question_id=uuid4(),
        asked_at=datetime(2026, 6, 1, tzinfo=UTC),
        deadline=datetime(2026, 6, 2, tzinfo=UTC),
        reply_to=ReplyTo(topic="answers", partition=0),
        user_id="alice",
        text=question,
    )
    assert [read_as(named) for named in named_times(asked)] == [told]


@pytest.mark.parametrize(
    ("matched", "day", "parts", "told"),
    [
        (("hot",), ("friday",), {"lexical": 0.4}, "  words: hot  day: friday"),
        ((), ("friday", "3"), {"lexical": 0.4}, "  day: friday, 3"),
        ((), (), {"lexical": 0.4}, "  words of what was said beside it"),
        ((), (), {"dense": 0.4}, ""),
    ],
)
def test_an_explanation_says_where_words_matched(
    matched: tuple[str, ...], day: tuple[str, ...], parts: dict[str, float], told: str
):
    hit = Hit(
        memory_id="m",
        text="hot soup",
        occurred_at=datetime(2026, 4, 3, tzinfo=UTC),
        version=1,
        domain="other",
        score=0.4,
        parts=parts,
        matched=matched,
        matched_day=day,
    )
    assert why(hit).partition(")")[2] == told


def test_an_explanation_reads_the_largest_part_first():
    hit = Hit(
        memory_id="m",
        text="hot soup",
        occurred_at=datetime(2025, 1, 1, tzinfo=UTC),
        version=1,
        domain="other",
        score=0.5,
        signals={"dense": -0.01, "lexical": 1.0, "time": 0.0, "importance": 0.7, "rerank": 0.9},
        parts={"dense": -0.002, "lexical": 0.4},
        matched=("hot", "soups"),
    )
    assert (
        why(hit) == "lexical +0.400 (1.00)  dense -0.002 (-0.01)  rerank (0.90)  words: hot, soups"
    )


def test_what_was_believed_then_is_asked_for(command: Command, client: FakeClient):
    command("search", "tests", "--user=alice")
    assert client.asked["as_of"] is None
    command("search", "tests", "--user=alice", "--as-of", "2026-05-01T10:00+02:00")
    assert client.asked["as_of"] == datetime(2026, 5, 1, 8, tzinfo=UTC)
    result = command("search", "tests", "--user=alice", "--as-of", "yesterday")
    assert result.exit_code == 2
    assert "--as-of: 'yesterday' is no date" in result.stderr


def test_classifiers_may_be_left_out(command: Command, client: FakeClient):
    command("search", "tests", "--user=alice")
    assert client.asked["use_classifiers"] is True
    command("search", "tests", "--user=alice", "--no-classifiers")
    assert client.asked["use_classifiers"] is False
