"""Receipts are followed in bounded numbers, and silence is told."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest

from pipeline.cli import confirming as module
from pipeline.cli.confirming import Confirming
from pipeline.errors import Unavailable, Unusable
from producers.receipts import Receipt
from tests.unit.cli.conftest import FakeClient


def receipts(count: int) -> list[Receipt]:
    return [
        Receipt(user_id="alice", memory_id=f"m{number}", event_id=uuid4(), version=1)
        for number in range(count)
    ]


class Gated:
    """Stores nothing until it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def stored(
        self, receipts: Sequence[Receipt], *, on_progress: Callable[[int], None], **_: Any
    ) -> list[str]:
        await self.open.wait()
        on_progress(len(receipts))
        return ["stored"] * len(receipts)


def ignored(*_: object) -> None: ...


def confirming(client: Any, **options: Any) -> Confirming:
    defaults: dict[str, Any] = {
        "patience_s": 60.0,
        "on_progress": ignored,
        "on_set_aside": ignored,
    }
    return Confirming(client, **(defaults | options))


async def test_all_are_counted_in_the_end():
    async with confirming(FakeClient()) as following:
        await following.add(receipts(1_200), ignored)
        await following.rest()
        assert following.settled == {"stored": 1_200}


async def test_what_is_set_aside_is_told_and_not_counted_as_stored():
    client, told = FakeClient(), list[str | None]()
    client.set_aside = {"m1": "no vector"}

    def tell(receipt: Receipt, _: Unusable) -> None:
        told.append(receipt.memory_id)

    async with confirming(client, on_set_aside=tell) as following:
        await following.add(receipts(3), ignored)
        await following.rest()
        assert following.settled == {"stored": 2, "set_aside": 1}
    assert told == ["m1"]


async def test_a_batch_is_settled_when_all_before_it_are():
    client, settled = Gated(), list[str]()
    async with confirming(client) as following:
        await following.add(receipts(600), lambda: settled.append("first"))
        await following.add([], lambda: settled.append("empty"))
        await following.add(receipts(1), lambda: settled.append("last"))
        assert settled == []
        client.open.set()
        await following.rest()
    assert settled == ["first", "empty", "last"]


async def test_who_publishes_too_fast_is_held_back():
    client = Gated()
    async with confirming(client, most=10) as following:
        await following.add(receipts(10), ignored)
        second = asyncio.create_task(following.add(receipts(10), ignored))
        await asyncio.sleep(0.05)
        assert not second.done()
        client.open.set()
        await second


async def test_silence_is_told_with_how_many_are_on_their_way():
    async with confirming(Gated(), patience_s=0.01) as following:
        await following.add(receipts(7), ignored)
        with pytest.raises(Unavailable, match="7 accepted"):
            await following.rest()


async def test_silence_is_told_while_it_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "WONDER_AFTER_S", 0.0)
    async with confirming(Gated(), patience_s=1.5) as following:
        await following.add(receipts(1), ignored)
        with pytest.raises(Unavailable):
            await following.rest()
    assert capsys.readouterr().err.count("Nothing was stored for 0 s; this waits 1.5 s.") == 1
