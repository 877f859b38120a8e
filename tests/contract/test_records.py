"""What every record promises: the twin and Postgres."""

from datetime import UTC, datetime
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from pydantic import JsonValue

from pipeline.domain.identity import content_hash, memory_key
from pipeline.domain.versions import erased, stamp
from pipeline.errors import Refused
from pipeline.ports import Changes, MemoryRecords
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import (
    Enriched,
    MemoryCaptured,
    MemoryClassified,
    MemoryEnriched,
    MemoryForgotten,
    Published,
    Said,
    UserForgotten,
)
from schemas.search import RecordedMemory
from tests.builders import enriched, fingerprints, forgotten, user_forgotten


async def text_of(records: MemoryRecords, memory_id: str, user_id: str = "alice") -> str | None:
    memory = await records.get(user_id, memory_id)
    return memory.text if memory else None


async def life(records: MemoryRecords, memory_id: str = "m") -> list[tuple[str, int, str | None]]:
    entries = await records.history("alice", memory_id)
    return [(entry.change, entry.version, entry.text) for entry in entries]


# Writing


async def test_writing_twice_is_writing_once(records: MemoryRecords) -> None:
    memory = enriched(memory_id="m", version=1)
    assert await records.write([memory]) == ["stored"]
    assert await records.write([memory, memory]) == ["stored", "stored"]
    assert await records.count(user_id="alice") == 1
    assert await life(records) == [("captured", 1, memory.text)]


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
async def test_the_greatest_version_wins_in_any_order(
    records: MemoryRecords, order: tuple[int, ...]
) -> None:
    for version in order:
        await records.write([enriched(f"state {version}", memory_id="m", version=version)])
    assert await text_of(records, "m") == "state 3"
    assert await life(records) == [
        ("captured", 1, "state 1"),
        ("revised", 2, "state 2"),
        ("revised", 3, "state 3"),
    ]


async def test_equal_versions_are_told_apart_by_event_id(records: MemoryRecords) -> None:
    one, other = (enriched(f"{i}", memory_id="m", version=5) for i in range(2))
    for event in (one, other, one):
        await records.write([event])
    assert await text_of(records, "m") == max([one, other], key=stamp).text


async def test_a_batch_may_hold_a_memory_thrice(records: MemoryRecords) -> None:
    states = [enriched(f"state {v}", memory_id="m", version=v) for v in (2, 3, 1)]
    neighbour = enriched("neighbour", memory_id="n")
    outcomes = await records.write([states[0], neighbour, *states[1:]])
    assert outcomes == ["stored", "stored", "stored", "superseded"]
    assert await text_of(records, "m") == "state 3"
    assert await text_of(records, "n") == "neighbour"
    assert [text for _, _, text in await life(records)] == ["state 1", "state 2", "state 3"]


async def test_a_state_under_an_idempotency_key_yields_to_any_other(
    records: MemoryRecords,
) -> None:
    revised = enriched("revised", memory_id="m", version=2)
    repeated = enriched("as remembered", memory_id="m", version=3, if_absent=True)
    assert await records.write([repeated]) == ["stored"]
    assert await records.write([revised]) == ["stored"]
    assert await records.write([repeated]) == ["superseded"]
    assert await text_of(records, "m") == "revised"


async def test_two_users_with_the_same_memory_id_do_not_touch_each_other(
    records: MemoryRecords,
) -> None:
    his = enriched("his", memory_id="m", user_id="bob")
    await records.write([enriched("hers", memory_id="m"), his])
    await records.write([forgotten("m")])
    assert await text_of(records, "m") is None
    assert await text_of(records, "m", "bob") == "his"
    assert (await records.count("alice"), await records.count("bob")) == (0, 1)


# What is kept


async def test_a_memory_is_kept_as_it_was_said(records: MemoryRecords) -> None:
    memory = enriched(
        "שלום 🍜 a\u202eb\n" + "x" * 15_000,
        memory_id="a/b 'c' \"d\" \\ %s $1",
        user_id="用户 🙂",
        speaker="bob",
        agent_id="agent",
        app_id="app",
        run_id="run",
        domain="business",
        topics=("travel", 'qu"ote', "{a,b}", "null"),
        occurred_at=datetime(2026, 5, 1, 12, 0, 0, 1, tzinfo=UTC),
        metadata={"deep": {"a.b": [{"c": None}, [], {}]}, "": 'quo"te', "ключ": "\\u0041"},
        importance=0.125,
        preceding=(
            Said(text="what?", speaker="ана"),
            Said(text="well\n", occurred_at=datetime(2026, 4, 30, tzinfo=UTC)),
        ),
    )
    await records.write([memory])
    said = memory.model_dump(include=set(RecordedMemory.model_fields))
    assert await records.get("用户 🙂", memory.memory_id) == RecordedMemory(**said)


@pytest.mark.parametrize("year", [1, 1600, 2300, 9999])
async def test_times_far_away_are_kept(records: MemoryRecords, year: int) -> None:
    moment = datetime(year, 6, 1, 1, 2, 3, 456789, tzinfo=UTC)
    await records.write([enriched(memory_id="m", occurred_at=moment)])
    kept = await records.get("alice", "m")
    assert kept is not None
    assert kept.occurred_at == moment


NUMBERS: dict[str, JsonValue] = {
    "great": 2**63 - 1,
    "small": -(2**63),
    "float": 1e300,
    "tiny": 5e-324,
    "third": 1 / 3,
    "true": True,
}


async def test_numbers_are_kept_exactly(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id="m", metadata=NUMBERS)])
    kept = await records.get("alice", "m")
    assert kept is not None
    assert kept.metadata == NUMBERS


@pytest.mark.parametrize(
    "number", [1e15, 1e16, -1.5e16, 2.0**62, -(2.0**63), 2.0**63, 1e300, -0.0, 0.0, 1.0, 1e-7]
)
async def test_a_number_comes_back_with_the_same_content_hash(
    records: MemoryRecords, number: float
) -> None:
    memory = enriched(memory_id="m", metadata={"n": number, "deep": [{"n": number}]})
    await records.write([memory])
    (published,) = await records.publishable([memory_key("alice", "m")])
    assert isinstance(published, MemoryCaptured)
    assert content_hash(published) == content_hash(memory)


async def test_what_is_not_there_is_none(records: MemoryRecords) -> None:
    assert await records.get("alice", "m") is None
    assert await records.history("alice", "m") == []
    assert await records.count("alice") == 0


@pytest.mark.parametrize("nobody", ["", " "])
async def test_a_question_without_a_user_is_refused(records: MemoryRecords, nobody: str) -> None:
    for asked in (
        records.get(nobody, "m"),
        records.outcomes(nobody, []),
        records.newest(nobody),
        records.history(nobody, "m"),
        records.count(nobody),
    ):
        with pytest.raises(Refused):
            await asked


# Forgetting


async def test_forgotten_stays_forgotten_when_an_older_event_arrives(
    records: MemoryRecords,
) -> None:
    old, newer = (enriched(memory_id="m", version=v) for v in (1, 9))
    await records.write([old])
    assert await records.write([forgotten("m", version=5)]) == ["stored"]
    assert await records.write([old]) == ["forgotten"]
    assert await text_of(records, "m") is None
    assert await records.count() == 0
    await records.write([newer])
    assert await text_of(records, "m") == newer.text


async def test_forgetting_a_user_takes_all_and_spares_what_comes_later(
    records: MemoryRecords,
) -> None:
    await records.write([enriched(memory_id=f"m{i}", version=i + 1) for i in range(9)])
    await records.write([enriched(memory_id="his", user_id="bob", version=1)])
    later = enriched(memory_id="later", version=11)
    assert await records.write([user_forgotten(version=10), later]) == ["stored", "stored"]
    assert await records.count("alice") == 1
    assert await records.count("bob") == 1
    assert await records.write([user_forgotten(version=10)]) == ["stored"]
    assert await text_of(records, "later") == later.text


async def test_how_new_what_was_forgotten_is_can_be_asked(records: MemoryRecords) -> None:
    async def until(memory_id: str, user_id: str = "alice") -> int:
        return await records.forgotten_until(user_id, memory_id)

    await records.write([enriched(memory_id="m", version=3), enriched(memory_id="n", version=3)])
    assert (await until("m"), await until("never")) == (0, 0)
    await records.write([forgotten("m", version=5)])
    assert (await until("m"), await until("n")) == (5, 0)
    await records.write([user_forgotten(version=9), enriched(memory_id="later", version=12)])
    await records.write([forgotten("later", version=15)])
    told = [await until(memory_id) for memory_id in ("m", "n", "never", "later")]
    assert told == [9, 9, 9, 15]
    assert await until("m", "bob") == 0
    with pytest.raises(Refused):
        await until("m", " ")


async def test_an_older_memory_of_a_forgotten_user_stays_out(records: MemoryRecords) -> None:
    await records.write([user_forgotten(version=10)])
    assert await records.write([enriched(version=9)]) == ["forgotten"]
    assert await records.count() == 0
    assert [each.known for each in await fingerprints(records)] == [erased(10)]


# The audit trail


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("batched", [True, False])
async def test_the_trail_is_the_same_in_any_order(
    records: MemoryRecords, order: tuple[int, ...], batched: bool
) -> None:
    events: list[Enriched] = [
        enriched("secret", memory_id="m", version=1, metadata={"a": "secret"}),
        enriched("secret too", memory_id="m", version=2),
        forgotten("m", version=3),
        enriched("said again", memory_id="m", version=4),
    ]
    shuffled = [events[place] for place in order]
    for batch in [shuffled] if batched else [[event] for event in shuffled]:
        await records.write(batch)
    assert await life(records) == [
        ("captured", 1, None),
        ("revised", 2, None),
        ("forgotten", 3, None),
        ("captured", 4, "said again"),
    ]
    assert (await records.history("alice", "m"))[0].metadata == {}


@pytest.mark.parametrize("backwards", [False, True])
async def test_of_one_version_the_trail_ends_with_the_state_that_wins(
    records: MemoryRecords, backwards: bool
) -> None:
    events = [UUID(int=5), UUID(int=7), UUID(int=6)]
    states: list[Enriched] = [
        enriched("first", memory_id="m", version=3, event_id=events[0]),
        forgotten("m", version=3, event_id=events[2]),
        enriched("last", memory_id="m", version=3, event_id=events[1]),
    ]
    for state in reversed(states) if backwards else states:
        await records.write([state])
    assert await text_of(records, "m") == "last"
    assert await life(records) == [
        ("captured", 3, None),
        ("forgotten", 3, None),
        ("captured", 3, "last"),
    ]


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_the_trail_of_a_forgotten_user_has_no_content(
    records: MemoryRecords, order: tuple[int, ...]
) -> None:
    events: list[Enriched] = [
        enriched("secret", memory_id="m", version=1, metadata={"a": "secret"}),
        user_forgotten(version=3),
        enriched("said again", memory_id="m", version=4),
    ]
    for place in order:
        await records.write([events[place]])
    assert await life(records) == [
        ("captured", 1, None),
        ("forgotten", 3, None),
        ("captured", 4, "said again"),
    ]


async def test_an_entry_tells_what_was_said_and_by_which_event(records: MemoryRecords) -> None:
    memory = enriched(memory_id="m", metadata={"source": "chat"})
    await records.write([memory])
    (entry,) = await records.history("alice", "m")
    told: dict[str, Any] = {name: getattr(entry, name) for name in ("event_id", "published_at")}
    assert told == {"event_id": memory.event_id, "published_at": memory.published_at}
    assert entry.metadata == {"source": "chat"}


# What the record says of itself


async def test_the_newest_version_of_a_user_is_that_of_any_state(records: MemoryRecords) -> None:
    await records.write(
        [enriched(version=5), enriched(version=8, if_absent=True), enriched(user_id="bob")]
    )
    assert (await records.newest("alice"), await records.newest("carol")) == (8, 0)
    await records.write([forgotten("m", version=9)])
    assert await records.newest("alice") == 9


# What is published again


async def test_what_is_publishable_brings_the_same_states_to_another_store(
    records: MemoryRecords,
) -> None:
    changes: list[Enriched] = [
        enriched("kept", memory_id="kept", speaker="bob", metadata={"a": [1, 1e300]}),
        enriched("first said", memory_id="once", if_absent=True),
        forgotten("gone"),
        enriched(memory_id="with her", user_id="carol", version=5),
        user_forgotten("carol", version=7),
    ]
    await records.write(changes)
    keys = [each.key for each in await records.page(None, 100)]
    again = await records.publishable(keys)
    assert isinstance(again[0], UserForgotten)
    anew = RecordsInMemory()
    await anew.write([_enriched_again(event) for event in again])
    assert await anew.page(None, 100) == await records.page(None, 100)
    assert await records.publishable([memory_key("alice", "never there")]) == []


async def test_what_went_with_a_user_is_told_of_page_by_page(records: MemoryRecords) -> None:
    ids = [f"m{n}" for n in range(5)]
    before, forgetting = user_forgotten(version=3), user_forgotten(version=9)
    await records.write([enriched(memory_id="long ago", version=2), before])
    await records.write([enriched(memory_id=name, version=n + 4) for n, name in enumerate(ids)])
    others = [enriched(memory_id="m0", user_id="bob", version=1), forgotten("later", version=10)]
    await records.write([*others, forgetting, enriched(memory_id="m2", version=11)])
    first = await records.gone_with(forgetting, "", 3)
    rest = await records.gone_with(forgetting, first[-1].memory_id, 3)
    assert [each.memory_id for each in (*first, *rest)] == ["long ago", "m0", "m1", "m3", "m4"]
    assert {(each.user_id, each.version) for each in first} == {("alice", 9)}
    assert await records.gone_with(forgetting, rest[-1].memory_id, 3) == []
    assert await records.gone_with(before, "", 3) == []
    keys = [memory_key("alice", each.memory_id) for each in first]
    published = await records.publishable(keys)
    assert {each.event_id for each in published} == {each.event_id for each in first}


async def test_telling_of_what_went_with_a_user_changes_nothing(records: MemoryRecords) -> None:
    forgetting = user_forgotten(version=9)
    await records.write([enriched(memory_id="m", version=1), forgetting])
    states, told = await records.page(None, 9), await records.gone_with(forgetting, "", 9)
    trail = await life(records)
    assert await records.write(told) == ["forgotten"]
    assert (await records.page(None, 9), await life(records)) == (states, trail)


def _enriched_again(event: Published | MemoryClassified) -> Enriched:
    if isinstance(event, MemoryForgotten | UserForgotten):
        return event
    return enriched(
        **{name: getattr(event, name) for name in type(event).model_fields if name != "type"}
    )


async def test_what_was_said_just_before_is_published_with_a_memory(records: MemoryRecords) -> None:
    said = [
        enriched(f"{n}", memory_id=f"m{n}", run_id="r", speaker="bob", version=n + 1)
        for n in range(5)
    ]
    await records.write([*said, forgotten("m2"), enriched("of another run", run_id="s", version=4)])
    (again,) = await records.publishable([memory_key("alice", "m4")])
    assert isinstance(again, MemoryCaptured)
    assert [each.text for each in again.preceding] == ["1", "3"]
    (alone,) = await records.publishable([memory_key("alice", "m0")])
    assert isinstance(alone, MemoryCaptured)
    assert alone.preceding == ()


async def preceding(records: MemoryRecords, memory_id: str) -> list[str]:
    """What is published as said before a memory."""
    (again,) = await records.publishable([memory_key("alice", memory_id)])
    assert isinstance(again, MemoryCaptured)
    return [said.text for said in again.preceding]


def answer(*before: str, **fields: Any) -> Enriched:
    """A memory of a conversation, and what its publisher says was said before it."""
    told = tuple(Said(text=text) for text in before)
    own: dict[str, Any] = {"memory_id": "m", "run_id": "r", "version": 50, "preceding": told}
    return enriched(**(own | fields))


async def test_what_the_publisher_told_of_what_was_said_before_is_kept(
    records: MemoryRecords,
) -> None:
    await records.write([enriched("of the record", run_id="r", version=1), answer("one", "two")])
    assert await preceding(records, "m") == ["one", "two"]


@pytest.mark.parametrize("batched", [True, False])
async def test_a_revision_keeps_what_was_said_before_unless_it_tells_something_else(
    records: MemoryRecords, batched: bool
) -> None:
    first, revised = answer("one", "two"), answer(version=60)
    for batch in [[first, revised]] if batched else [[first], [revised]]:
        await records.write(batch)
    assert await preceding(records, "m") == ["one", "two"]
    await records.write([answer("three", version=70)])
    assert await preceding(records, "m") == ["three"]
    await records.write([answer(version=80, run_id="s")])
    assert await preceding(records, "m") == []


SECRET = "the code is 4711"


def told_the_secret(**fields: Any) -> Enriched:
    defaults = dict[str, Any](text=SECRET, memory_id="s", run_id="r", version=1)
    return enriched(**(defaults | fields))


@pytest.mark.parametrize("run_id", ["r", None])
@pytest.mark.parametrize("batched", [True, False])
async def test_what_is_forgotten_was_not_said_before_anything(
    records: MemoryRecords, run_id: str | None, batched: bool
) -> None:
    changes: list[Enriched] = [
        told_the_secret(run_id=run_id),
        enriched("and then", memory_id="s", run_id=run_id, version=2),
        answer("before", SECRET, run_id=run_id),
        answer(SECRET, "and then", memory_id="n", run_id=run_id, version=40),
        answer(SECRET, memory_id="of another run", run_id="t"),
        answer(SECRET, memory_id="his", user_id="bob", run_id=run_id),
        forgotten("s", version=9),
    ]
    for batch in [changes] if batched else [[change] for change in changes]:
        await records.write(batch)
    assert await preceding(records, "m") == ["before"]
    assert await preceding(records, "n") == []
    assert await preceding(records, "of another run") == []
    (his,) = await records.publishable([memory_key("bob", "his")])
    assert isinstance(his, MemoryCaptured)
    assert [said.text for said in his.preceding] == [SECRET]


async def test_what_was_forgotten_does_not_come_back_with_the_same_event(
    records: MemoryRecords,
) -> None:
    after = answer(SECRET)
    await records.write([told_the_secret(), after, forgotten("s", version=9), after])
    await records.write([after])
    assert await preceding(records, "m") == []


async def test_what_comes_after_its_forgetting_was_not_said_before_anything(
    records: MemoryRecords,
) -> None:
    await records.write([forgotten("s", version=9)])
    await records.write([answer(SECRET)])
    await records.write([told_the_secret()])
    assert await preceding(records, "m") == []


async def test_a_forgotten_user_said_nothing_before_what_is_left(records: MemoryRecords) -> None:
    await records.write([told_the_secret(), answer(SECRET)])
    await records.write([user_forgotten(version=9)])
    assert await preceding(records, "m") == []


@pytest.mark.parametrize("memory_first", [True, False])
async def test_what_is_told_after_a_user_was_forgotten_stays(
    records: MemoryRecords, memory_first: bool
) -> None:
    changes = [user_forgotten(version=9), answer("shall we fly?")]
    for change in reversed(changes) if memory_first else changes:
        await records.write([change])
    assert await preceding(records, "m") == ["shall we fly?"]


async def test_what_was_told_before_a_user_was_forgotten_goes_from_what_was_revised_since(
    records: MemoryRecords,
) -> None:
    await records.write([answer("shall we fly?", version=5), answer(version=50)])
    await records.write([enriched("the code was 1", memory_id="k", version=6)])
    await records.write([enriched("revised", memory_id="k", version=50)])
    await records.write([answer("the code was 1", "and then", memory_id="n")])
    await records.write([user_forgotten(version=9)])
    assert await preceding(records, "m") == []
    assert await preceding(records, "n") == ["and then"]


async def test_a_forgetting_that_comes_again_takes_nothing_from_what_came_since(
    records: MemoryRecords,
) -> None:
    gone = forgotten("s", version=9)
    await records.write([told_the_secret(), gone])
    await records.write([answer(SECRET)])
    assert await records.write([gone]) == ["stored"]
    assert await preceding(records, "m") == [SECRET]


async def test_another_copy_of_a_users_forgetting_takes_nothing_from_what_came_since(
    records: MemoryRecords,
) -> None:
    gone = user_forgotten(version=9)
    await records.write([gone, answer("one")])
    assert await records.write([gone]) == ["stored"]
    assert await preceding(records, "m") == ["one"]


@pytest.mark.parametrize("batched", [True, False])
async def test_of_two_texts_under_one_key_record_and_trail_tell_the_same(
    records: MemoryRecords, batched: bool
) -> None:
    event_id = UUID(int=7)
    drafts = [
        told_the_secret(event_id=event_id, if_absent=True, version=version, text=text)
        for version, text in ((5, "a draft"), (3, SECRET), (7, "too late"))
    ]
    for batch in [drafts] if batched else [[draft] for draft in drafts]:
        await records.write(batch)
    known = await records.get("alice", "s")
    assert known is not None
    assert (known.text, known.version) == (SECRET, 3)
    told = [(each.version, each.text) for each in await records.history("alice", "s")]
    assert told == [(3, SECRET)]
    await records.write([answer(SECRET), forgotten("s", version=9)])
    assert await preceding(records, "m") == []
    # The tombstone keeps it out, and the trail without it.
    await records.write(drafts)
    assert [each.text for each in await records.history("alice", "s")] == [None, None]


async def test_a_revision_without_a_conversation_hears_what_it_knows_of_before(
    records: MemoryRecords,
) -> None:
    first, revised = answer("one", run_id=None), answer(run_id=None, version=60)
    await records.write([first])
    await records.write([revised])
    looked_at = Changes(memories={memory_key("alice", "m")})
    assert await heard(records, looked_at) == {"m": (["one"], [])}


# What is said beside a memory


def turn(number: int, *before: str, text: str | None = None, **fields: Any) -> MemoryEnriched:
    """A turn of a conversation."""
    told = tuple(Said(text=text) for text in before)
    defaults = dict[str, Any](
        memory_id=f"m{number}", run_id="r", version=number + 1, preceding=told
    )
    return enriched(text or f"turn {number}", **(defaults | fields))


def of(*changed: MemoryEnriched | MemoryForgotten) -> Changes:
    return Changes(memories={memory_key(each.user_id, each.memory_id) for each in changed})


async def anew(records: MemoryRecords, changes: Changes) -> dict[str, MemoryClassified]:
    """Those that have to hear something, by memory id."""
    return {each.memory.memory_id: each.memory for each in await records.contexts(changes)}


async def heard(records: MemoryRecords, changes: Changes) -> dict[str, tuple[list[str], list[str]]]:
    """What is said before and after those that have to hear something, which they then do."""
    told = await anew(records, changes)
    await records.write([_enriched_again(each) for each in told.values()])
    return {
        name: ([said.text for said in each.preceding], [said.text for said in each.following])
        for name, each in told.items()
    }


async def test_the_two_before_a_memory_hear_it(records: MemoryRecords) -> None:
    turns = [turn(0), turn(1, "turn 0"), turn(2, "turn 0", "turn 1")]
    await records.write(turns)
    assert await heard(records, of(*turns)) == {
        "m0": ([], ["turn 1", "turn 2"]),
        "m1": (["turn 0"], ["turn 2"]),
    }
    last = turn(3, "turn 1", "turn 2")
    await records.write([last])
    assert await heard(records, of(last)) == {
        "m1": (["turn 0"], ["turn 2", "turn 3"]),
        "m2": (["turn 0", "turn 1"], ["turn 3"]),
    }


async def test_who_has_heard_everything_does_not_come_again(records: MemoryRecords) -> None:
    turns = [turn(number) for number in range(4)]
    await records.write(turns)
    assert await heard(records, of(*turns))
    assert await heard(records, of(*turns)) == {}
    await records.write(turns)
    assert await heard(records, of(*turns)) == {}
    keys = {memory_key("alice", each.memory_id) for each in turns}
    assert await heard(records, Changes(read=keys)) == {}


async def test_what_comes_again_is_the_same_event_with_the_same_content(
    records: MemoryRecords,
) -> None:
    first = turn(0, speaker="bob", metadata={"a": 1.5}, topics=("x", "y"), importance=0.25)
    await records.write([first, turn(1)])
    told = (await anew(records, of(first)))["m0"]
    same = set(MemoryClassified.model_fields) - {"type", "context", "following", "hops"}
    assert told.model_dump(include=same) == first.model_dump(include=same)
    assert content_hash(told) == content_hash(first)
    await records.write([_enriched_again(told)])
    assert await text_of(records, "m0") == first.text
    assert await life(records, "m0") == [("captured", 1, first.text)]


async def test_a_later_reading_has_a_greater_number(records: MemoryRecords) -> None:
    turns = [turn(0), turn(1)]
    await records.write(turns)
    first = (await anew(records, of(turns[1])))["m0"]
    ahead = first.model_copy(update={"context": first.context + 10**12, "following": ()})
    await records.write([_enriched_again(first), _enriched_again(ahead)])
    assert (await anew(records, of(turns[1])))["m0"].context > ahead.context
    await records.write([_enriched_again(first)])
    assert (await anew(records, of(turns[1])))["m0"].context > ahead.context


async def test_memories_of_no_conversation_or_of_others_are_not_beside_each_other(
    records: MemoryRecords,
) -> None:
    alone = [turn(number, run_id=None) for number in range(3)]
    others = [turn(3), turn(4, run_id="s"), turn(5, user_id="bob")]
    await records.write([*alone, *others])
    assert await heard(records, of(*alone, *others)) == {}
    (again,) = await records.publishable([memory_key("alice", "m0")])
    assert isinstance(again, MemoryCaptured)
    assert (again.context, again.following) == (0, ())


async def test_who_comes_late_is_heard_on_both_sides_and_hears_both(
    records: MemoryRecords,
) -> None:
    turns = [turn(number) for number in (0, 1, 3, 4)]
    await records.write(turns)
    await heard(records, of(*turns))
    late = turn(2)
    await records.write([late])
    assert await heard(records, of(late)) == {
        "m0": ([], ["turn 1", "turn 2"]),
        "m1": (["turn 0"], ["turn 2", "turn 3"]),
        "m2": (["turn 0", "turn 1"], ["turn 3", "turn 4"]),
        "m3": (["turn 1", "turn 2"], ["turn 4"]),
        "m4": (["turn 2", "turn 3"], []),
    }


async def test_a_revision_hears_what_its_first_state_heard(records: MemoryRecords) -> None:
    turns = [turn(0, "before"), turn(1, "turn 0")]
    await records.write(turns)
    await heard(records, of(*turns))
    revised = turn(0, text="revised", version=50, occurred_at=turns[0].occurred_at)
    await records.write([revised])
    assert (await heard(records, of(revised)))["m0"] == (["before"], ["turn 1"])


async def test_who_moves_does_not_take_along_what_a_reading_has_heard_elsewhere(
    records: MemoryRecords,
) -> None:
    turns = [turn(number) for number in range(4)]
    await records.write(turns)
    reading = _enriched_again((await anew(records, of(turns[1])))["m1"])
    moved = turn(1, version=50)
    await records.write([reading, moved])
    assert (await heard(records, of(moved)))["m1"] == (["turn 2", "turn 3"], [])


async def test_a_reading_that_is_delivered_twice_is_still_no_word_of_its_publisher(
    records: MemoryRecords,
) -> None:
    turns = [turn(number) for number in range(3)]
    await records.write(turns)
    readings = [_enriched_again(each) for each in (await anew(records, of(*turns))).values()]
    await records.write(readings)
    await records.write(readings)
    moved = turn(0, version=50)
    await records.write([moved])
    assert await heard(records, of(moved)) == {
        "m0": (["turn 1", "turn 2"], []),
        "m1": ([], ["turn 2", "turn 0"]),
        "m2": (["turn 1"], ["turn 0"]),
    }


async def test_a_revision_of_what_was_read_meanwhile_knows_what_its_publisher_said(
    records: MemoryRecords,
) -> None:
    turns = [turn(0, "before"), turn(1, "turn 0")]
    await records.write(turns)
    reading = _enriched_again((await anew(records, of(*turns)))["m0"])
    revised = turn(0, text="revised", version=50, occurred_at=turns[0].occurred_at)
    for batch in ([reading, revised], [turns[0], reading, revised]):
        await records.write(batch)
        assert await preceding(records, "m0") == ["before"]


async def test_what_is_forgotten_is_not_heard_any_more(records: MemoryRecords) -> None:
    turns = [turn(0), turn(1, "turn 0"), turn(2, "turn 0", "turn 1"), turn(3, "turn 1", "turn 2")]
    await records.write(turns)
    await heard(records, of(*turns))
    gone = forgotten("m1", version=50)
    await records.write([gone])
    assert await heard(records, of(gone)) == {
        "m0": ([], ["turn 2", "turn 3"]),
        "m2": (["turn 0"], ["turn 3"]),
        "m3": (["turn 2"], []),
    }
    await records.write([gone])
    assert await heard(records, of(gone)) == {}


async def test_who_leaves_a_place_is_not_heard_there_any_more(records: MemoryRecords) -> None:
    turns = [turn(0), turn(1), turn(2)]
    await records.write(turns)
    await heard(records, of(*turns))
    moved = turn(0, version=50, run_id="s")
    await records.write([moved])
    told = await heard(records, of(moved))
    assert told["m1"] == ([], ["turn 2"])
    assert told["m2"] == (["turn 1"], [])


async def test_who_is_in_no_conversation_any_more_is_not_heard_where_it_was(
    records: MemoryRecords,
) -> None:
    turns = [turn(0), turn(1), turn(2)]
    await records.write(turns)
    await heard(records, of(*turns))
    alone = turn(0, version=50, run_id=None)
    await records.write([alone])
    # Nor after another state: nobody may have looked between the two.
    await records.write([alone, turn(0, version=51, run_id=None)])
    left = Changes(alone={memory_key("alice", "m0"), memory_key("alice", "nobody")})
    assert await heard(records, left) == {"m1": ([], ["turn 2"]), "m2": (["turn 1"], [])}
    assert await heard(records, left) == {}


async def test_who_was_never_in_a_conversation_has_left_nobody(records: MemoryRecords) -> None:
    alone = turn(0, run_id=None)
    await records.write([alone, turn(1)])
    await records.write([turn(0, version=50, run_id=None), turn(2)])
    assert await heard(records, Changes(alone={memory_key("alice", "m0")})) == {}


async def test_what_is_left_of_a_forgotten_user_hears_nothing_of_the_rest(
    records: MemoryRecords,
) -> None:
    turns = [turn(0), turn(1, "turn 0"), turn(2, "turn 0", "turn 1", version=50)]
    await records.write(turns)
    await heard(records, of(*turns))
    await records.write([user_forgotten(version=9)])
    assert await heard(records, Changes(users={"alice", "bob"})) == {"m2": ([], [])}
    assert await heard(records, Changes(users={"alice", "bob"})) == {}


async def test_some_are_told_in_any_case_unless_they_are_forgotten(records: MemoryRecords) -> None:
    kept, alone, gone = turn(0), turn(1, run_id=None), forgotten("gone")
    hers = turn(2, user_id="carol", version=5)
    await records.write([kept, alone, gone, hers, user_forgotten("carol", version=9)])
    keys = {memory_key(each.user_id, each.memory_id) for each in (kept, alone, gone, hers)}
    assert (await anew(records, Changes(again=keys))).keys() == {"m0", "m1"}


async def test_what_was_forgotten_meanwhile_does_not_come_back_with_a_reading(
    records: MemoryRecords,
) -> None:
    await records.write([told_the_secret(), answer(SECRET, "else"), turn(90)])
    reading = (await anew(records, of(turn(90))))["m"]
    await records.write([forgotten("s", version=9)])
    await records.write([_enriched_again(reading)])
    assert await preceding(records, "m") == ["else"]


async def test_what_comes_after_its_forgetting_and_a_newer_state_was_not_said_before_anything(
    records: MemoryRecords,
) -> None:
    hears = answer(SECRET)
    await records.write([hears, forgotten("s", version=9)])
    await records.write([enriched("hello", memory_id="s", run_id=None, version=10)])
    assert await records.write([told_the_secret()]) == ["superseded"]
    assert await preceding(records, "m") == []
    told = await heard(records, Changes(alone={memory_key("alice", "s")}))
    assert told == {"m": ([], [])}
    # What was only revised was said.
    await records.write([answer("revised", memory_id="n"), enriched(memory_id="k", version=60)])
    late = enriched("revised", memory_id="k", run_id="r", version=55)
    assert await records.write([late]) == ["superseded"]
    assert await preceding(records, "n") == ["revised"]


@pytest.mark.parametrize("of_the_secret", ["r", None])
@pytest.mark.parametrize("run_id", ["r", "s", None])
async def test_whoever_was_told_of_what_is_forgotten_comes_once_more_without_it(
    records: MemoryRecords, of_the_secret: str | None, run_id: str | None
) -> None:
    others = [turn(number) for number in range(10, 13)]
    late = turn(90, SECRET, "else", run_id=run_id)
    await records.write([told_the_secret(run_id=of_the_secret), *others, late])
    await heard(records, of(*others, late))
    gone = forgotten("s", version=50)
    await records.write([gone])
    told = (await anew(records, of(gone)))["m90"]
    assert [said.text for said in told.preceding] == ["else"]
    assert told.context > 0
    await records.write([_enriched_again(told)])
    assert "m90" not in await anew(records, of(gone))
    assert await preceding(records, "m90") == ["else"]
    # What was before it does not come back with the publisher's own, nor is it told with a lesser number.
    await records.write([late])
    assert "m90" not in await anew(records, of(gone))
    (again,) = await records.publishable([memory_key("alice", "m90")])
    assert isinstance(again, MemoryCaptured)
    assert again.context > told.context


async def test_what_is_left_of_a_user_is_not_told_with_what_was_forgotten_in_no_conversation(
    records: MemoryRecords,
) -> None:
    await records.write([told_the_secret(run_id=None), answer(SECRET, run_id=None)])
    await records.write([user_forgotten(version=9)])
    assert await heard(records, Changes(users={"alice"})) == {"m": ([], [])}
    assert await heard(records, Changes(users={"alice"})) == {}


async def test_the_record_says_which_readings_it_holds(records: MemoryRecords) -> None:
    turns = [turn(0), turn(1), turn(2), turn(3, run_id=None)]
    await records.write(turns)
    readings = await anew(records, of(turns[0], turns[2]))
    await records.write([_enriched_again(readings[name]) for name in ("m0", "m2")])
    await records.write([turns[0], forgotten("m2", version=50)])
    keys = [memory_key("alice", each.memory_id) for each in [*turns, turn(9)]]
    assert await records.readings(keys) == {keys[0]: readings["m0"].context}


async def test_what_is_published_again_knows_what_was_said_after_it(
    records: MemoryRecords,
) -> None:
    await records.write([turn(number) for number in range(4)])
    (again,) = await records.publishable([memory_key("alice", "m1")])
    assert isinstance(again, MemoryCaptured)
    assert [said.text for said in again.following] == ["turn 2", "turn 3"]
    assert again.context > 0
