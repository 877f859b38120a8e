"""Rows become memories: nothing is guessed, nothing is lost on the way."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.rows import CONVERSATIONS, Conversations, memory_of
from pipeline.errors import Refused
from producers.client import NewMemory


def row(**fields: Any) -> bytes:
    return json.dumps({"user": "alice", "text": "I love Thai food", **fields}).encode()


def test_known_fields_are_taken_and_the_rest_is_metadata():
    memory = memory_of(
        row(
            id="m1",
            date="2025-01-01 08:20:15",
            speaker="Alice",
            session=7,
            agent_id="a",
            app_id="b",
            type="sms",
            caption=None,
            metadata={"k": [1, 2]},
        ),
        overwrite=True,
    )
    assert memory == NewMemory(
        text="I love Thai food",
        user_id="alice",
        memory_id="m1",
        occurred_at=datetime(2025, 1, 1, 8, 20, 15, tzinfo=UTC),
        speaker="Alice",
        run_id="7",
        agent_id="a",
        app_id="b",
        metadata={"type": "sms", "k": [1, 2]},
    )


def test_the_same_memory_has_the_same_key_unless_it_is_to_overwrite():
    key = memory_of(row(id="m1", text="a")).idempotency_key
    assert key
    assert memory_of(row(id="m1", text="b")).idempotency_key == key
    assert memory_of(row(id="m2", text="a")).idempotency_key != key
    assert memory_of(row(id="m1"), overwrite=True).idempotency_key is None


def test_a_user_given_for_all_stands_in_only_where_a_row_names_none():
    unnamed = json.dumps({"text": "hi"}).encode()
    assert memory_of(unnamed, user="bob").user_id == "bob"
    assert memory_of(row(), user="bob").user_id == "alice"


def test_the_same_line_of_the_same_user_is_the_same_memory():
    line = json.dumps({"text": "hi"}).encode()
    assert memory_of(line, user="bob").memory_id == memory_of(line + b"\r", user="bob").memory_id
    assert memory_of(line, user="bob").memory_id != memory_of(line, user="eve").memory_id
    assert memory_of(row(text="a")).memory_id != memory_of(row(text="b")).memory_id


def test_a_byte_order_mark_is_no_content():
    assert memory_of(b"\xef\xbb\xbf" + row()).text == "I love Thai food"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON in UTF-8"),
        (b"[1]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b'{"text": "hi"}', "whose memory"),
        (row(text=""), "is empty"),
        (row(text="  "), "is empty"),
        (row(text=None), '^no "text": what is to be remembered'),
        (b'{"user": "nina"}', '^no "text": what'),
        (b'{"user_id": "nina"}', '^no "text": what'),
        (b'{"user": "nina", "txt": "hi"}', r'^no "text" \(there is "txt"\)'),
        (b'{"user": "nina", "Text": "hi"}', r'^no "text" \(there is "Text"\)'),
        (b'{"user": "nina", "content": "hi"}', r'^no "text" \(there is "content"\)'),
        (b'{"usr": "nina", "text": "hi"}', r'^no "user" \(there is "usr"\): whose memory'),
        (b'{"userId": "nina", "text": "hi"}', r'^no "user" \(there is "userId"\): whose'),
        (row(text=5), "text"),
        (row(text="x" * 16_001), "16000"),
        (row(text="a\0b"), "NUL"),
        (row(text="\ud800"), "text"),
        (row(user=True), "must be text"),
        (row(user=" alice"), "white space"),
        (row(user_id="bob"), "user and user_id say different things"),
        (row(id={"a": 1}), "must be text"),
        (row(date="8 May"), "2025-01-31T08:20:15"),
        (row(date=1735719615), "must be text"),
        (row(metadata=[1]), "JSON object"),
        (row(n=float("nan")), "not finite"),
        (row(n=2**70), "64 bits"),
        (row(n="x" * 20_000), "16384"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(line: bytes, why: str):
    with pytest.raises(Refused, match=why):
        memory_of(line)


@given(
    st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: row(x=v))
)
def test_no_line_does_worse_than_be_refused(line: bytes):
    with suppress(Refused):
        assert memory_of(line, user="alice").text.strip()


def said(text: str, run: str | None = "r", user: str = "alice") -> NewMemory:
    return NewMemory(text=text, user_id=user, run_id=run)


def preceding(memory: NewMemory) -> list[str]:
    return [before.text for before in memory.preceding]


def test_a_memory_follows_the_two_before_it_in_its_run():
    conversations = Conversations()
    followed = [conversations.follow(said(text)) for text in "abcd"]
    assert [preceding(memory) for memory in followed] == [[], ["a"], ["a", "b"], ["b", "c"]]


def test_runs_of_two_users_are_two_conversations():
    conversations = Conversations()
    conversations.follow(said("a"))
    assert preceding(conversations.follow(said("b", user="bob"))) == []


def test_a_memory_without_a_run_stands_alone():
    conversations = Conversations()
    conversations.follow(said("a", run=None))
    assert preceding(conversations.follow(said("b", run=None))) == []


def test_a_conversation_goes_on_after_an_interruption():
    conversations = Conversations()
    conversations.follow(said("a"))
    resumed = Conversations.from_kept(json.loads(json.dumps(conversations.as_kept())))
    assert preceding(resumed.follow(said("b"))) == ["a"]


def test_only_so_many_conversations_are_followed():
    conversations = Conversations()
    for run in range(CONVERSATIONS + 1):
        conversations.follow(said("a", run=str(run)))
    assert len(conversations.as_kept()) == CONVERSATIONS
    assert preceding(conversations.follow(said("b", run="0"))) == []
