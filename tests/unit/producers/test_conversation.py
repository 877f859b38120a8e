"""What was said before travels with each turn."""

import asyncio
from typing import Any, cast

import pytest

from pipeline.errors import Unavailable
from producers.client import MemoryClient
from producers.conversation import Conversation


class Memory:
    """Remembers what it was told, or cannot."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.away = False

    async def remember(self, text: str, **fields: Any) -> str:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("Kafka is away")
        self.told.append({"text": text, **fields})
        return text

    def before(self, turn: int) -> list[tuple[str, str | None]]:
        return [(said.text, said.speaker) for said in self.told[turn]["preceding"]]


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def turns(memory: Memory) -> Conversation:
    return Conversation(cast("MemoryClient", memory), user_id="alice", run_id="chat")


async def test_each_turn_carries_the_two_before_it(memory: Memory, turns: Conversation) -> None:
    for speaker, text in (("Ana", "When is your exam?"), ("Bo", "In June"), ("Bo", "The 2nd")):
        await turns.remember(text, speaker=speaker)
    await turns.remember("Good luck", speaker="Ana")
    assert memory.before(0) == []
    assert memory.before(3) == [("In June", "Bo"), ("The 2nd", "Bo")]
    assert {(told["user_id"], told["run_id"]) for told in memory.told} == {("alice", "chat")}


async def test_turns_that_are_remembered_at_once_keep_their_order(
    memory: Memory, turns: Conversation
) -> None:
    await asyncio.gather(*(turns.remember(text) for text in "abc"))
    assert [told["text"] for told in memory.told] == ["a", "b", "c"]
    assert memory.before(2) == [("a", None), ("b", None)]


async def test_what_was_not_remembered_was_not_said(memory: Memory, turns: Conversation) -> None:
    memory.away = True
    with pytest.raises(Unavailable):
        await turns.remember("lost")
    memory.away = False
    await turns.remember("kept")
    assert memory.before(0) == []
