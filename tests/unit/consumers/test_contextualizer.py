"""A memory comes once more when its conversation has gone on, and that comes to an end."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from consumers import classifier, contextualizer, embedder, record_writer
from consumers.contextualizer import Sent, changes_in, is_on_its_way
from pipeline.domain.identity import memory_key
from pipeline.domain.receipts import done
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.ports import Changes, Reading
from pipeline.sources.mem0 import Rules, changed, observed
from pipeline.stage import Stage
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import (
    Enriched,
    MemoryCaptured,
    MemoryClassified,
    MemoryEnriched,
    MemorySetAside,
    Said,
    Stored,
)
from tests.builders import enriched, forgotten, user_forgotten

KEY = memory_key("alice", "m")


def turn(number: int, **fields: Any) -> MemoryEnriched:
    own = {"memory_id": f"m{number}", "run_id": "r", "version": number + 1}
    return enriched(f"turn {number}", **(own | fields))


async def rounds(records: RecordsInMemory, learnt: Sequence[Enriched]) -> list[list[Enriched]]:
    """What is written one after the other, until nothing comes once more."""
    written = list[list[Enriched]]()
    changes: Any = learnt
    understand = embedder.stage(HashingEmbedder(), CacheInMemory())
    while changes:
        written.append(list(changes))
        notices = await record_writer.stage(records).react(changes)
        told: Any = await contextualizer.stage(records).react(notices)
        assert len(told) == len(notices)
        changes = await understand.react([each for some in told for each in some])
    return written


async def test_a_conversation_comes_once_more_and_no_more() -> None:
    records = RecordsInMemory()
    first, again, *more = await rounds(records, [turn(number) for number in range(5)])
    assert len(first) == 5
    assert sorted(each.memory_id for each in again if isinstance(each, MemoryEnriched)) == [
        f"m{number}" for number in range(5)
    ]
    assert not more


async def test_who_knew_what_was_before_and_hears_nothing_after_does_not_come_again() -> None:
    records = RecordsInMemory()
    await rounds(records, [turn(0), turn(1, preceding=(Said(text="turn 0"),))])
    last = turn(2, preceding=(Said(text="turn 0"), Said(text="turn 1")))
    _, again = await rounds(records, [last])
    assert {each.memory_id for each in again if isinstance(each, MemoryEnriched)} == {"m0", "m1"}


async def test_what_was_on_its_way_while_the_conversation_changed_comes_right() -> None:
    records, understand = RecordsInMemory(), embedder.stage(HashingEmbedder(), CacheInMemory())
    turns = [turn(0), turn(1, preceding=(Said(text="turn 0"),))]
    notices = await record_writer.stage(records).react(turns)
    told: Any = await contextualizer.stage(records).react(notices)
    on_its_way: Any = await understand.react(told[-1])
    # Forgotten meanwhile: the record knows of nobody yet who has heard it.
    _, *more = await rounds(records, [forgotten("m1", version=50)])
    assert not more
    _, mended = await rounds(records, on_its_way)
    assert [(each.memory_id, each.following) for each in mended] == [("m0", ())]  # pyright: ignore


def from_mem0(number: int) -> MemoryCaptured:
    """What the poller publishes of a memory that Mem0 has: it knows of nothing said before."""
    at = datetime(2026, 3, 1, 8, number, tzinfo=UTC)
    row = {"id": f"m{number}", "memory": f"turn {number}", "user_id": "alice", "run_id": "r"}
    seen = observed(row | {"created_at": at.isoformat(), "updated_at": at.isoformat()})
    told = changed(None, seen, project_id="p", asked_at=at, now=at, rules=Rules())
    assert told is not None
    (event,) = told.events
    assert isinstance(event, MemoryCaptured)
    return event


async def test_memories_from_mem0_hear_both_sides_in_whatever_order_they_come() -> None:
    records, understand = RecordsInMemory(), embedder.stage(HashingEmbedder(), CacheInMemory())
    last = dict[str, tuple[list[str], list[str]]]()
    for number in (2, 0, 4, 1, 3):
        about: Any = await classifier.stage(HeuristicClassifier()).react([from_mem0(number)])
        learnt: Any = await understand.react(about)
        for written in await rounds(records, learnt):
            last |= {
                each.memory_id: ([t.text for t in each.preceding], [t.text for t in each.following])
                for each in written
                if isinstance(each, MemoryEnriched)
            }
    said = [f"turn {number}" for number in range(5)]
    assert last == {
        f"m{number}": (said[max(0, number - 2) : number], said[number + 1 : number + 3])
        for number in range(5)
    }


async def told_by(listener: Stage, notices: Sequence[Stored]) -> list[MemoryClassified]:
    """What one stage sends, once Kafka has it."""
    made: Any = await listener.react(notices)
    assert [page async for page in listener.follow(list(zip(notices, made, strict=True)))] == []
    return [each for some in made for each in some]


async def test_what_is_on_its_way_is_not_sent_again_nor_is_anything_else_until_it_is_there() -> (
    None
):
    records, understand = RecordsInMemory(), embedder.stage(HashingEmbedder(), CacheInMemory())
    writer, listener = record_writer.stage(records), contextualizer.stage(records)
    on_its_way = list[MemoryClassified]()
    for number in range(3):
        before = tuple(Said(text=f"turn {n}") for n in range(number))
        notices: Any = await writer.react([turn(number, preceding=before)])
        on_its_way += await told_by(listener, notices)
        on_its_way += await told_by(listener, notices)
    assert [each.memory_id for each in on_its_way] == ["m0", "m1"]
    notices = await writer.react(await understand.react(on_its_way))
    again = await told_by(listener, notices)
    assert [(each.memory_id, len(each.following)) for each in again] == [("m0", 2)]


async def test_what_kafka_did_not_take_is_sent_again() -> None:
    records = RecordsInMemory()
    notices: Any = await record_writer.stage(records).react([turn(0), turn(1)])
    listener = contextualizer.stage(records)
    assert (await listener.react(notices))[-1]
    assert len(await told_by(listener, notices)) == 2
    assert not await told_by(listener, notices)


def test_on_its_way_is_what_the_record_has_not_seen_of_the_same_state() -> None:
    state = enriched(memory_id="m", run_id="r", context=9)
    reading = Reading(state.becomes(MemoryClassified, {}), heard=4)
    sent = Sent(state.event_id, state.version, context=5)
    assert is_on_its_way(sent, reading)
    assert not is_on_its_way(None, reading)
    assert not is_on_its_way(sent._replace(context=4), reading)
    assert not is_on_its_way(sent._replace(event_id=uuid4()), reading)
    assert not is_on_its_way(sent._replace(version=state.version - 1), reading)


@pytest.mark.parametrize("run_id", ["r", None])
async def test_a_plain_event_that_is_repeated_behind_a_reading_has_the_newest_put_behind_it(
    run_id: str | None,
) -> None:
    records = RecordsInMemory()
    plain = turn(1, run_id=run_id, preceding=(Said(text="turn 0"),))
    await rounds(records, [turn(0, run_id=run_id), plain])
    await rounds(records, [forgotten("m0", version=50)])
    (held,) = (await records.readings([memory_key("alice", "m1")])).values()
    _, (last,), *more = await rounds(records, [plain])
    assert isinstance(last, MemoryEnriched)
    assert last.preceding == ()
    assert last.context > held
    assert not more
    # In one batch the reading is the last already.
    assert len(await rounds(records, [plain, last])) == 1


async def test_who_leaves_every_conversation_is_not_heard_any_more() -> None:
    records = RecordsInMemory()
    await rounds(records, [turn(number) for number in range(3)])
    alone = turn(2).model_copy(update={"version": 50, "run_id": None})
    _, again, *more = await rounds(records, [alone])
    said = {each.memory_id: each.following for each in again if isinstance(each, MemoryEnriched)}
    assert {name: [each.text for each in texts] for name, texts in said.items()} == {
        "m0": ["turn 1"],
        "m1": [],
    }
    assert not more


async def test_what_the_index_tells_asks_nothing() -> None:
    class Untouched(RecordsInMemory):
        async def contexts(self, changes: Changes) -> Any:
            raise AssertionError("the record was asked")

    notices: list[Stored] = [done(enriched(), "index", "stored") for _ in range(3)]
    assert await contextualizer.stage(Untouched()).react(notices) == [()] * 3


def test_what_is_stored_has_those_beside_it_looked_at() -> None:
    here = enriched(memory_id="m", run_id="r")
    assert changes_in([done(here, "record", "stored")]) == Changes(memories={KEY})
    assert changes_in([done(forgotten("m"), "record", "stored")]) == Changes(memories={KEY})
    assert changes_in([done(enriched(memory_id="m"), "record", "stored")]) == Changes(alone={KEY})
    users = done(user_forgotten(), "record", "stored")
    assert changes_in([users]) == Changes(users={"alice"})


def test_what_comes_once_more_is_only_read_again() -> None:
    anew = enriched(memory_id="m", run_id="r", context=5)
    assert changes_in([done(anew, "record", "stored")]) == Changes(read={KEY})


def test_what_came_behind_a_later_reading_has_the_newest_state_put_behind_it() -> None:
    plain = enriched(memory_id="m", run_id="r")
    assert changes_in([done(plain, "record", "stored", 5)]) == Changes(memories={KEY}, again={KEY})
    anew = plain.model_copy(update={"context": 4})
    assert changes_in([done(anew, "record", "stored", 5)]) == Changes(read={KEY}, again={KEY})
    assert changes_in([done(anew, "record", "stored", 4)]) == Changes(read={KEY})


def test_what_comes_once_more_too_late_has_the_newest_state_put_behind_it() -> None:
    anew = enriched(memory_id="m", run_id="r", context=5)
    assert changes_in([done(anew, "record", "superseded")]) == Changes(again={KEY})
    assert not changes_in([done(anew, "record", "forgotten")])


def test_an_older_state_changes_nothing_itself_unless_it_shows_that_all_was_forgotten() -> None:
    old = enriched(memory_id="m", run_id="r")
    assert changes_in([done(old, "record", "superseded")]) == Changes(alone={KEY})
    assert changes_in([done(old, "record", "forgotten")]) == Changes(memories={KEY})


def test_what_the_index_has_done_and_what_was_set_aside_is_not_listened_to() -> None:
    here = enriched(memory_id="m", run_id="r")
    aside = MemorySetAside(event_id=uuid4(), stage="embedder", reason="-", at=here.published_at)
    assert not changes_in([done(here, "index", "stored"), aside])
