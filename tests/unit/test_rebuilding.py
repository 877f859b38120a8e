"""What a rebuild opens, whoever has the index."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.app import Addresses, mending
from pipeline.domain.wording import worded
from pipeline.kafka.connection import KafkaConnection
from pipeline.models.classifier import HeuristicClassifier
from pipeline.settings import Settings
from schemas.events import MemoryClassified, Said
from tests.builders import captured
from tests.unit.consumers.counting import CountingEmbedder


async def test_a_rebuild_keeps_no_more_vectors_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = CountingEmbedder()

    @asynccontextmanager
    async def opened(*_: object) -> AsyncGenerator[Any]:
        yield {"classifier": HeuristicClassifier(), "embedder": model, "records": None}

    async def nobody(*_: object) -> dict[str, int]:
        return {}

    async def fresh(*_: object) -> Any:
        return SimpleNamespace(index=None)

    monkeypatch.setattr(mending, "open_ports", opened)
    monkeypatch.setattr(mending, "fresh_index", fresh)
    monkeypatch.setattr("pipeline.kafka.lag.group_members", nobody)
    monkeypatch.setattr(mending, "KEPT_BYTES", 30_000, raising=False)
    where = Addresses(KafkaConnection("nowhere:1"), None, None, None, None)
    first, *others = [_turn(f"turn {n} of a long talk") for n in range(50)]
    async with mending.open_for_rebuilding(Settings(), where) as (_, filling, _):
        await filling.embed([first])
        await filling.embed([_turn("what came next", after=first)])
        assert model.texts.count(worded(first)) == 1
        for turn in others:
            await filling.embed([turn])
        await filling.embed([_turn("long after", after=first)])
    assert model.texts.count(worded(first)) == 2


def _turn(text: str, *, after: MemoryClassified | None = None) -> MemoryClassified:
    said = (Said(text=after.text, occurred_at=after.occurred_at),) if after else ()
    about = {"domain": "general", "topics": (), "importance": 0.5}
    event = captured(text, memory_id=text, run_id="talk", preceding=said)
    return event.becomes(MemoryClassified, about)
