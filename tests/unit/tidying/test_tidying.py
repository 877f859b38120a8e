"""What is put away and brought back: nothing in a dry run, all of a batch and no more."""

from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.clock import version_at
from pipeline.domain.pruning import Rule
from pipeline.domain.tiers import Tiers
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.tidying.consolidating import consolidate
from pipeline.tidying.looking import Tidied
from pipeline.tidying.pruning import prune
from pipeline.tidying.restoring import restore
from schemas.events import MemoryEnriched
from tests.builders import archived, consolidated, enriched, forgotten, recalled
from tests.unit.tidying.lifecycle import NOW, tier, tools

LONG_AGO = NOW - timedelta(days=300)
RULE = Rule(0.2, timedelta(days=90))
DAY = timedelta(days=1)


@pytest.fixture
def records() -> RecordsInMemory:
    return RecordsInMemory()


async def test_a_dry_run_tells_and_changes_nothing(records: RecordsInMemory) -> None:
    await records.write([enriched(memory_id="a", importance=0.1, published_at=LONG_AGO)])
    tidied = Tidied("b", 9)
    await prune(tools(records, dry=True), tidied, "alice", RULE)
    assert tidied.counts == {"archived": 1}
    assert tidied.told[0]["unused_days"] == 300
    assert not await records.lives(None, 9)


async def test_a_prune_is_undone_by_its_batch_and_touches_nobody_else(
    records: RecordsInMemory,
) -> None:
    old: dict[str, Any] = {"importance": 0.1, "published_at": LONG_AGO}
    await records.write(
        [
            *(enriched(memory_id=f"m{n}", **old) for n in range(3)),
            enriched(memory_id="used", **old),
            enriched(memory_id="m0", user_id="bob", **old),
        ]
    )
    await records.live([recalled("used", at=NOW)], Tiers())
    await prune(tools(records), Tidied("first", 9), "alice", RULE)
    assert [await tier(records, f"m{n}") for n in range(3)] == ["archived"] * 3
    assert await tier(records, "used") == await tier(records, "m0", "bob") == "short"
    await prune(tools(records), Tidied("second", 9), None, RULE)
    back = Tidied("back", 9)
    await restore(
        tools(records),
        back,
        None,
        lambda each: each.told is not None and each.told.batch == "first",
    )
    assert back.counts == {"restored": 3}
    assert await tier(records, "m0") == "short"
    assert await tier(records, "m0", "bob") == "archived"


async def test_what_was_said_elsewhere_or_of_something_else_stays_in_sight(
    records: RecordsInMemory,
) -> None:
    def approved(memory_id: str, run_id: str, **metadata: Any) -> MemoryEnriched:
        return enriched("Approved", memory_id=memory_id, run_id=run_id, metadata=metadata)

    await records.write(
        [
            approved("one", "ticket-1", amount=50, by="Ana"),
            approved("twice", "ticket-1", by="Ana", amount=50),
            approved("more", "ticket-1", by="Ana", amount=900),
            approved("other", "ticket-2", by="Ana", amount=50),
        ]
    )
    tidied = Tidied("b", 9)
    await consolidate(tools(records), tidied, None, DAY)
    assert {each["memory_id"] for each in tidied.told} in ({"one"}, {"twice"})


async def test_what_says_the_same_is_archived_into_one_and_brought_back(
    records: RecordsInMemory,
) -> None:
    same = ["I love Thai food", "I really love Thai food!", "I love thai food"]
    await records.write(
        [
            *(enriched(text, memory_id=f"m{n}", version=n + 5) for n, text in enumerate(same)),
            enriched("I love thai food", memory_id="ben", speaker="Ben"),
            enriched("I love thai food", memory_id="his", user_id="bob"),
        ]
    )
    await records.live([recalled("m1", at=NOW)], Tiers())
    tidied = Tidied("b", 9)
    await consolidate(tools(records), tidied, None, DAY)
    assert {each["memory_id"]: each["into"] for each in tidied.told} == {"m0": "m1", "m2": "m1"}
    survivor = await records.get("alice", "m1")
    assert survivor is not None
    assert (survivor.tier, survivor.consolidated) == ("short", ("m0", "m2"))
    again = Tidied("again", 9)
    await consolidate(tools(records), again, None, DAY)
    assert not again.counts
    await restore(tools(records), Tidied("r", 9), "alice", lambda each: each.memory_id == "m0")
    survivor = await records.get("alice", "m1")
    assert survivor is not None
    assert survivor.consolidated == ("m2",)
    assert await tier(records, "m0") == "short"


async def test_what_is_said_meanwhile_is_not_put_away(records: RecordsInMemory) -> None:
    """A revision that is on its way while the record is looked at is no old memory."""
    old: dict[str, Any] = {"version": 5, "importance": 0.1, "published_at": LONG_AGO}
    await records.write([enriched("old", memory_id="pruned", **old)])
    await records.write(
        [enriched("tea", memory_id=name, version=n) for n, name in enumerate("bs", 5)]
    )
    await prune(tools(records), Tidied("b", 9), "alice", RULE)
    await consolidate(tools(records), Tidied("c", 9), "alice", DAY)
    assert await tier(records, "pruned") == await tier(records, "b") == "archived"
    await records.write([enriched("anew", memory_id=name, version=7) for name in ("pruned", "b")])
    assert await tier(records, "pruned") == await tier(records, "b") == "short"


async def test_a_restore_parts_who_was_said_anew_from_who_stood_for_it(
    records: RecordsInMemory,
) -> None:
    await records.write(
        [enriched("tea", memory_id=name, version=n) for n, name in enumerate("as", 5)]
    )
    await consolidate(tools(records), Tidied("b", 9), "alice", DAY)
    await records.write([enriched("anew", memory_id="a", version=7)])
    restored = Tidied("r", 9)
    await restore(tools(records), restored, "alice", lambda _: True)
    assert not restored.counts
    survivor = await records.get("alice", "s")
    assert survivor is not None
    assert (survivor.tier, survivor.consolidated) == ("short", ())


async def test_a_restore_parts_who_is_named_and_not_put_away(records: RecordsInMemory) -> None:
    names = ["forgotten", "in sight", "put away", "s"]
    await records.write([enriched("tea", memory_id=name, version=5) for name in names])
    # Of these two the words that put them away never came, or came to nothing.
    word = archived("put away", reason="consolidated", into="s", version=6)
    await records.live([consolidated("s", *names[:3], version=6), word], Tiers())
    await records.write([forgotten("forgotten", version=7)])
    restored = Tidied("r", 9)
    await restore(tools(records), restored, "alice", lambda each: each.memory_id == "s")
    survivor = await records.get("alice", "s")
    assert survivor is not None
    assert (survivor.consolidated, dict(restored.counts)) == (("put away",), {})


async def test_a_restore_comes_after_a_word_of_a_clock_that_is_ahead(
    records: RecordsInMemory,
) -> None:
    ahead = NOW + timedelta(hours=3)
    await records.write([enriched(memory_id="a", version=5)])
    word = archived("a", version=version_at(ahead), published_at=ahead, of_version=5)
    await records.live([word], Tiers())
    await restore(tools(records), Tidied("r", 9), "alice", lambda _: True)
    assert await tier(records, "a") == "short"


async def test_who_consolidates_is_told_both_texts_and_what_was_told_further_apart(
    records: RecordsInMemory,
) -> None:
    told = [
        ("near", "I like tea!", 0.0),
        ("kept", "I like tea", 0.5),
        ("far", "I like  tea", -40.2),
    ]
    await records.write(
        [
            enriched(text, memory_id=name, version=n, occurred_at=NOW + when * DAY)
            for n, (name, text, when) in zip((5, 7, 6), told, strict=True)
        ]
    )
    tidied = Tidied("b", 9)
    await consolidate(tools(records, dry=True), tidied, "alice", DAY)
    assert tidied.told == [
        {
            "user": "alice",
            "memory_id": "near",
            "text": "I like tea!",
            "into": "kept",
            "into_text": "I like tea",
        }
    ]
    assert (tidied.apart, tidied.apart_days) == (1, 41)
    all_of_them = Tidied("b", 9)
    await consolidate(tools(records, dry=True), all_of_them, "alice", 41 * DAY)
    assert (all_of_them.counts.total(), all_of_them.apart) == (2, 0)
