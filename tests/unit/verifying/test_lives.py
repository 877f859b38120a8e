"""An index that was made anew learns where all memories stand by their use, however many there are."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.domain.tiers import Tiers
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.verifying import lives
from pipeline.verifying.comparing import tier_differences
from pipeline.verifying.lives import fill_lives, tell_lives
from schemas.events import MemoryTiered
from schemas.topics import TIERED, Topic
from tests.builders import DIMENSIONS, MODEL, archived, enriched, recalled, vectors_in_memory

MEMORIES = [enriched(f"text {n}", memory_id=f"m{n}", version=5) for n in range(5)]


@pytest.fixture
async def records(monkeypatch: pytest.MonkeyPatch) -> RecordsInMemory:
    """Three were recalled and one is archived: more than a page."""
    monkeypatch.setattr(lives, "PAGE", 3)
    record = RecordsInMemory()
    await record.write(MEMORIES)
    used = [recalled(f"m{n}", at=datetime.now(UTC)) for n in range(3)]
    await record.live([*used, archived("m3", version=6)], Tiers())
    return record


async def test_a_fresh_index_is_filled_with_all_lives(records: RecordsInMemory) -> None:
    fresh, told = vectors_in_memory(MODEL, DIMENSIONS), list[tuple[float, int]]()

    def passing(fraction: float, seen: int) -> None:
        told.append((fraction, seen))

    await fresh.write(MEMORIES)
    pages = [await store.page(None, 100) for store in (records, fresh)]
    assert len(tier_differences(*pages)) == 4
    await fill_lives(records, fresh, passing)
    pages = [await store.page(None, 100) for store in (records, fresh)]
    assert not tier_differences(*pages)
    assert [seen for _, seen in told] == [3, 4, 4]
    assert told[-1][0] == 1.0


async def test_all_lives_are_told_once_more(records: RecordsInMemory) -> None:
    published: list[MemoryTiered] = []

    class Publishing:
        async def publish(self, topic: Topic, events: Sequence[MemoryTiered]) -> None:
            assert topic == TIERED
            published.extend(events)

    publishing: Any = Publishing()
    await tell_lives(records, publishing)
    assert published == [told for _, told in await records.lives(None, 100)]
    assert {each.memory_id for each in published} == {"m0", "m1", "m2", "m3"}
