"""A publisher publishes no more than keeps the stages near, and who waits for them can be stopped."""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from pipeline.errors import Refused, Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import GroupState
from pipeline.kafka.records import group_of
from producers import backlog as module
from producers.backlog import Backlog
from producers.client import MemoryClient
from tests.hearing import heard

SOMEWHERE = KafkaConnection("kafka.example:9092")


class Stages:
    """So far behind as they are told to be."""

    def __init__(self) -> None:
        self.behind = 0

    async def group_states(self, _: object, reads: Mapping[str, str]) -> dict[str, GroupState]:
        classifier = group_of("memory", "classifier")
        return {group: GroupState(self.behind * (group == classifier), 1) for group in reads}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    stages = Stages()
    monkeypatch.setattr(module, "group_states", stages.group_states)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    return stages


def backlog(most: int, *, when_full: Literal["wait", "refuse"] = "wait") -> Backlog:
    return Backlog(SOMEWHERE, "memory", most=most, when_full=when_full)


@pytest.mark.parametrize("most", [-1, 0, True, 2.5, "9"])
def test_a_limit_that_nothing_could_keep_is_refused_at_once(most: Any) -> None:
    with pytest.raises(Refused, match=r"most_behind: .* must be 1 or more"):
        MemoryClient(SOMEWHERE, most_behind=most)


@pytest.mark.parametrize("most", [5, None])
def test_what_to_do_when_behind_is_one_of_two(most: int | None) -> None:
    with pytest.raises(Refused, match=r'when_behind: .* "wait" or "refuse"'):
        MemoryClient(SOMEWHERE, most_behind=most, when_behind="drop")  # pyright: ignore[reportArgumentType]


async def test_no_more_is_admitted_than_there_is_room_for(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 60.0)
    held_back = backlog(500, when_full="refuse")
    assert await held_back.admit(300) == 300
    assert await held_back.admit(1_000) == 200
    stages.behind = 499
    assert await held_back.admit(1_000) == 1
    stages.behind = 500
    with pytest.raises(Unavailable, match="500 events behind, and at most 500"):
        await held_back.admit(1)


async def test_what_others_publish_meanwhile_counts(stages: Stages) -> None:
    held_back = backlog(5, when_full="refuse")
    assert await held_back.admit(1) == 1
    stages.behind = 5
    await asyncio.sleep(0.02)
    with pytest.raises(Unavailable):
        await held_back.admit(1)


async def test_who_waits_goes_on_once_there_is_room(stages: Stages) -> None:
    stages.behind = 9
    waiting = asyncio.create_task(backlog(5).admit(3))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    stages.behind = 3
    assert await asyncio.wait_for(waiting, 5) == 2


async def test_a_wait_is_told_of_and_ends_with_whoever_gives_it_up(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_EVERY_S", 0.02)
    stages.behind = 9
    held_back = backlog(5)
    with heard() as logged:
        waiting = asyncio.create_task(held_back.admit(1))
        async with asyncio.timeout(10):
            while not logged:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert logged[0]["behind"] == 9
    waiting = asyncio.create_task(held_back.admit(1))
    await asyncio.sleep(0.05)
    held_back.close()
    with pytest.raises(Refused, match="was closed"):
        await waiting
