"""Where memories stand by their use: kept beside them, carried along with them, gone with them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from pipeline.domain.identity import memory_key
from pipeline.domain.tiers import Tiers
from pipeline.ports import MemoryRecords, MemoryVectors
from pipeline.stores.index import Points, VectorIndex
from pipeline.stores.points import IndexShape, Payload, point
from schemas.events import Lived, MemoryTiered, Tier
from schemas.search import Hit, SearchFilter
from tests.builders import (
    DIMENSIONS,
    MODEL,
    archived,
    consolidated,
    enriched,
    forgotten,
    question,
    recalled,
    restored,
    tiered,
    user_forgotten,
)

TIERS = Tiers()
SHAPE = IndexShape(MODEL, DIMENSIONS)
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


async def found(vectors: MemoryVectors, *tiers: Tier, user_id: str = "alice") -> dict[str, Hit]:
    hits = await vectors.search(
        user_id, question(), filter=SearchFilter(tiers=tiers), limit=100, min_score=None
    )
    return {hit.memory_id: hit for hit in hits}


def strong(memory_id: str, *, version: int = 100, **fields: object) -> MemoryTiered:
    told = {"recalled_at": NOW, "medium_until": NOW + 9 * DAY, "long_until": NOW + 5 * DAY}
    return tiered(memory_id, version=version, tier="long", strength=0.9, **told | fields)


def away(memory_id: str, *, version: int = 100, archived_version: int = 50) -> MemoryTiered:
    return tiered(
        memory_id,
        version=version,
        tier="archived",
        archived_version=archived_version,
        reason="pruned",
        strength=0,
    )


# The index


async def test_a_memory_stands_where_it_was_told_to_stand(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id=name, version=5) for name in ("a", "b", "c")])
    await vectors.tier([strong("a"), strong("b", long_until=NOW - DAY, consolidated=("x",))])
    hits = await found(vectors)
    assert {name: hit.tier for name, hit in hits.items()} == {
        "a": "long",
        "b": "medium",
        "c": "short",
    }
    assert hits["b"].consolidated == ("x",)
    assert list(await found(vectors, "long")) == ["a"]
    assert list(await found(vectors, "medium")) == ["b"]
    assert list(await found(vectors, "short")) == ["c"]


async def test_what_is_archived_is_found_by_who_asks_for_it(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id=name, version=5) for name in ("a", "b")])
    await vectors.tier([away("a")])
    assert set(await found(vectors)) == {"b"}
    assert set(await found(vectors, "archived")) == {"a"}
    assert set(await found(vectors, "archived", "short")) == {"a", "b"}
    assert await vectors.count("alice") == 2
    await vectors.tier([tiered("a", version=101, reason="restored")])
    assert set(await found(vectors)) == {"a", "b"}


async def test_an_older_word_changes_nothing(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id="a", version=5)])
    await vectors.tier([strong("a", version=100)])
    await vectors.tier([away("a", version=99)])
    await vectors.tier([away("a", version=98), strong("a", version=97)])
    assert (await found(vectors))["a"].tier == "long"


async def test_a_later_state_keeps_the_life_of_its_memory(vectors: MemoryVectors) -> None:
    first = enriched("then", memory_id="a", version=5)
    await vectors.write([first])
    await vectors.tier([strong("a", consolidated=("x",))])
    for state in (first, enriched("now", memory_id="a", version=6)):
        await vectors.write([state])
        hit = (await found(vectors))["a"]
        assert (hit.text, hit.tier, hit.consolidated) == (state.text, "long", ("x",))


@pytest.mark.parametrize("first", ["revision", "tiering"])
async def test_a_revision_brings_an_archived_memory_back(
    vectors: MemoryVectors, first: str
) -> None:
    await vectors.write([enriched(memory_id="a", version=5)])
    steps = {
        "tiering": lambda: vectors.tier([away("a", archived_version=50)]),
        "revision": lambda: vectors.write([enriched("anew", memory_id="a", version=51)]),
    }
    for step in sorted(steps, key=lambda name: name != first):
        await steps[step]()
    assert (await found(vectors))["a"].text == "anew"


async def test_a_repair_leaves_an_archived_memory_archived(vectors: MemoryVectors) -> None:
    state = enriched(memory_id="a", version=5)
    await vectors.write([state])
    await vectors.tier([away("a")])
    await vectors.write([state])
    assert not await found(vectors)


async def test_nothing_forgotten_comes_back_by_its_tier(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id=name, version=5) for name in ("a", "b")])
    await vectors.tier([strong("a"), strong("b")])
    await vectors.write([forgotten("a", version=6)])
    await vectors.write([user_forgotten(version=6)])
    await vectors.tier([strong("a", version=101), strong("b", version=101), strong("never")])
    assert await vectors.count() == 0
    assert isinstance(vectors, VectorIndex)
    there = await vectors.points.fetch([memory_key("alice", name) for name in ("a", "b", "never")])
    assert len(there) == 2
    assert not any("life" in payload or "strength" in payload for payload in there.values())


async def test_a_memory_that_is_remembered_anew_begins_anew(vectors: MemoryVectors) -> None:
    await vectors.write([enriched(memory_id="a", version=5)])
    await vectors.tier([strong("a")])
    await vectors.write([forgotten("a", version=6), enriched(memory_id="a", version=7)])
    assert (await found(vectors))["a"].tier == "short"


async def test_who_writes_without_knowing_of_a_life_is_turned_away(vectors: MemoryVectors) -> None:
    assert isinstance(vectors, VectorIndex)
    await vectors.write([enriched("then", memory_id="a", version=5)])
    await vectors.tier([away("a", archived_version=50)])
    await vectors.points.put([point(enriched("now", memory_id="a", version=6), SHAPE)])
    assert (await found(vectors, "archived"))["a"].text == "then"
    await vectors.points.put([point(forgotten("a", version=6), SHAPE)])
    assert await vectors.count() == 0


class _Between:
    """Points beside which something happens once, after they were looked at."""

    def __init__(self, points: Points, happens: Callable[[], Awaitable[None]]) -> None:
        self._points, self._happens = points, [happens]

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        there = await self._points.fetch(ids)
        while self._happens:
            await self._happens.pop()()
        return there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._points, name)


async def test_a_memory_that_comes_once_more_is_written_though_its_life_has_just_changed(
    vectors: MemoryVectors,
) -> None:
    assert isinstance(vectors, VectorIndex)
    learnt = enriched(memory_id="a", version=5)
    await vectors.write([learnt])
    between: Any = _Between(vectors.points, lambda: vectors.tier([strong("a")]))
    await VectorIndex(between, SHAPE).write([learnt.model_copy(update={"context": 7})])
    key = memory_key("alice", "a")
    assert (await vectors.points.fetch([key]))[key]["context"] == 7
    assert (await found(vectors))["a"].tier == "long"


async def test_both_hands_writing_at_once_lose_nothing(vectors: MemoryVectors) -> None:
    names = [f"m{number}" for number in range(5)]
    await vectors.write([enriched(memory_id=name, version=5) for name in names])
    await asyncio.gather(
        *(
            step
            for n in range(6, 12)
            for step in (
                vectors.write([enriched(f"{n}", memory_id=name, version=n) for name in names]),
                vectors.tier([strong(name, version=100 + n) for name in names]),
            )
        )
    )
    hits = await found(vectors)
    assert {(hit.text, hit.tier) for hit in hits.values()} == {("11", "long")}


async def test_kept_answers_end_where_a_memory_is_put_away_not_where_one_is_recalled(
    vectors: MemoryVectors,
) -> None:
    await vectors.write([enriched(memory_id="a", version=5)])
    generations = [await vectors.generation("alice")]
    steps = [
        tiered("a", version=100, recalled_at=NOW),
        tiered("a", version=101, recalled_at=NOW, strength=0.6),
        strong("a", version=102),
        away("a", version=103),
        away("a", version=103),
    ]
    for step in steps:
        await vectors.tier([step])
        generations.append(await vectors.generation("alice"))
    first, same, too, risen, gone, again = generations
    # A tier is read anew for each answer, and each answer is a recall.
    assert first == same == too == risen
    # Repeated after a crash: whether anybody was told of it before is not known.
    assert len({risen, gone, again}) == 3


# The record


async def test_the_record_tells_where_a_memory_stands(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id="a", version=5)])
    events = [recalled("a", at=NOW - days * DAY) for days in (21, 14, 7, 0)]
    told = await records.live(events, TIERS)
    assert [each.tier for each in told if each] == ["short", "medium", "medium", "long"]
    memory = await records.get("alice", "a")
    assert memory is not None
    assert memory.tier == "long"
    assert [each for _, each in await records.lives(None, 10)] == [told[-1]]


async def test_what_is_consolidated_tells_into_what_until_it_is_revised(
    records: MemoryRecords,
) -> None:
    await records.write([enriched(memory_id=each, version=5) for each in "ab"])
    await records.live([archived("a", version=7, into="b")], TIERS)
    memory = await records.get("alice", "a")
    assert memory is not None
    assert (memory.tier, memory.into) == ("archived", "b")
    await records.write([enriched("anew", memory_id="a", version=9)])
    memory = await records.get("alice", "a")
    assert memory is not None
    assert (memory.tier, memory.into) == ("short", None)


async def test_hearing_it_again_tells_the_same_again(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id="a", version=5)])
    events = [recalled("a", at=NOW), archived("a", version=7, into="b")]
    told = await records.live(events, TIERS)
    again = await records.live(list(reversed(events)), TIERS)
    assert again == [told[-1], told[-1]]


async def test_nothing_is_kept_of_a_memory_that_is_not_there(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id="a", version=5), forgotten("a", version=6)])
    assert await records.live([recalled(name, at=NOW) for name in ("a", "never")], TIERS) == [
        None,
        None,
    ]
    assert not await records.lives(None, 10)


@pytest.mark.parametrize("first", ["revision", "archived"])
async def test_only_the_state_that_was_looked_at_is_archived(
    records: MemoryRecords, first: str
) -> None:
    """The revision was published before the word that archives, and is stored before or after it."""
    await records.write([enriched("old", memory_id="a", version=5)])
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "revision": lambda: records.write([enriched("anew", memory_id="a", version=8)]),
        "archived": lambda: records.live([archived("a", version=9, of_version=5)], TIERS),
    }
    for step in sorted(steps, key=lambda name: name != first):
        await steps[step]()
    memory = await records.get("alice", "a")
    assert memory is not None
    assert (memory.text, memory.tier) == ("anew", "short")
    await records.live([archived("a", version=10, of_version=8)], TIERS)
    assert (memory := await records.get("alice", "a"))
    assert memory.tier == "archived"
    await records.live([restored("a", version=11)], TIERS)
    assert (memory := await records.get("alice", "a"))
    assert memory.tier == "short"


async def test_what_changes_nothing_begins_no_life(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id="a", version=5)])
    long_ago = datetime(1970, 1, 1, 0, 30, tzinfo=UTC)
    assert await records.live([recalled("a", at=long_ago), consolidated("a")], TIERS) == [None] * 2
    assert not await records.lives(None, 10)
    (told,) = await records.live([recalled("a", at=NOW)], TIERS)
    assert await records.live([recalled("a", at=long_ago)], TIERS) == [told]


async def test_a_life_goes_with_its_memory(records: MemoryRecords) -> None:
    memories = [enriched(memory_id=name, version=5) for name in ("a", "b", "c")]
    await records.write([*memories, enriched(memory_id="a", user_id="bob", version=5)])
    heard = [recalled(name, at=NOW) for name in ("a", "b", "c")]
    await records.live([*heard, recalled("a", user_id="bob", at=NOW)], TIERS)
    await records.write([forgotten("a", version=6)])
    assert {told.memory_id for _, told in await records.lives(None, 10)} == {"a", "b", "c"}
    await records.write([user_forgotten(version=6)])
    (left,) = await records.lives(None, 10)
    assert left[1].user_id == "bob"
    await records.write([enriched(memory_id="b", version=9)])
    memory = await records.get("alice", "b")
    assert memory is not None
    assert memory.tier == "short"


async def test_nobody_stands_for_what_was_forgotten(records: MemoryRecords) -> None:
    names = ("a", "b", "c", "d")
    await records.write([enriched(memory_id=name, version=5) for name in names])
    merged = [archived(name, reason="consolidated", into="a") for name in ("b", "c", "d")]
    await records.live([*merged, consolidated("a", "b", "c", "d")], TIERS)
    memory = await records.get("alice", "a")
    assert memory is not None
    assert memory.consolidated == ("b", "c", "d")
    await records.write([forgotten("b"), forgotten("c")])
    memory = await records.get("alice", "a")
    assert memory is not None
    assert memory.consolidated == ("d",)
    (told,) = await records.live([recalled("a", at=NOW)], TIERS)
    assert told is not None
    assert told.consolidated == ("d",)


async def standing(records: MemoryRecords) -> dict[str, tuple[Tier, tuple[str, ...]]]:
    there = {name: await records.get("alice", name) for name in "ast"}
    return {name: (told.tier, told.consolidated) for name, told in there.items() if told}


def into(memory_id: str, survivor: str, version: int) -> list[Lived]:
    return [
        archived(memory_id, reason="consolidated", into=survivor, version=version, of_version=5),
        consolidated(survivor, memory_id, version=version),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1), (2, 0, 1, 3)])
async def test_two_that_are_put_away_for_one_another_leave_one_in_sight(
    records: MemoryRecords, order: Sequence[int]
) -> None:
    await records.write([enriched(memory_id=name, version=5) for name in "as"])
    crossing = [*into("a", "s", 7), *into("s", "a", 8)]
    for number in order:
        await records.live([crossing[number]], TIERS)
    expected = {"a": ("archived", ()), "s": ("short", ("a",))}
    if order[0]:
        expected = {"s": ("archived", ()), "a": ("short", ("s",))}
    assert await standing(records) == expected


@pytest.mark.parametrize("gone", ["survivor", "duplicate"])
async def test_nobody_is_put_away_for_what_was_forgotten_meanwhile(
    records: MemoryRecords, gone: str
) -> None:
    await records.write([enriched(memory_id=name, version=5) for name in "as"])
    forgot, left = ("s", "a") if gone == "survivor" else ("a", "s")
    await records.write([forgotten(forgot, version=6)])
    await records.live(into("a", "s", 7), TIERS)
    assert await standing(records) == {left: ("short", ())}


async def test_nobody_stands_for_what_was_forgotten_between_the_two_words(
    records: MemoryRecords,
) -> None:
    await records.write([enriched(memory_id=name, version=5) for name in "ast"])
    away, stands = into("a", "s", 7)
    await records.live([stands, *into("t", "s", 7)], TIERS)
    await records.write([forgotten("a", version=6)])
    assert await records.live([away], TIERS) == [None]
    left: dict[str, tuple[Tier, tuple[str, ...]]] = {"s": ("short", ("t",)), "t": ("archived", ())}
    assert await standing(records) == left
    # Nor when either word is repeated after a crash, whatever has come under its name since.
    await records.write([enriched("anew", memory_id="a", version=8)])
    await records.live([stands], TIERS)
    assert await standing(records) == left | {"a": ("short", ())}


async def test_who_was_put_away_between_the_two_words_stands_for_nobody(
    records: MemoryRecords,
) -> None:
    await records.write([enriched(memory_id=name, version=5) for name in "as"])
    away, stands = into("a", "s", 7)
    await records.live([stands, archived("s", version=8, of_version=5), away, stands], TIERS)
    assert await standing(records) == {"a": ("short", ()), "s": ("archived", ())}


async def test_a_word_that_is_repeated_parts_nobody(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id=name, version=5) for name in "as"])
    words = into("a", "s", 7)
    await records.live([*words, archived("s", version=8, of_version=5), *words], TIERS)
    assert await standing(records) == {"a": ("archived", ()), "s": ("archived", ("a",))}


async def test_who_stood_for_what_was_forgotten_stands_for_those_it_stood_for(
    records: MemoryRecords,
) -> None:
    await records.write([enriched(memory_id=name, version=5) for name in "ast"])
    await records.live([*into("a", "s", 7), *into("s", "t", 8)], TIERS)
    await records.write([forgotten("s", version=9)])
    assert await standing(records) == {"a": ("archived", ()), "t": ("short", ("a",))}
    (told,) = [told for _, told in await records.lives(None, 9) if told.memory_id == "a"]
    assert told.into == "t"
    await records.write([forgotten("a", version=9)])
    assert await standing(records) == {"t": ("short", ())}


async def test_a_chain_that_is_forgotten_at_once_leaves_no_name(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id=name, version=5) for name in "ast"])
    await records.live([*into("a", "s", 7), *into("s", "t", 8)], TIERS)
    await records.write([forgotten("s", version=9), forgotten("a", version=9)])
    assert await standing(records) == {"t": ("short", ())}
    await records.write([user_forgotten(version=9)])
    assert not await records.lives(None, 9)


async def test_belongings_are_told_page_by_page(records: MemoryRecords) -> None:
    memories = [enriched(f"{n}", memory_id=f"m{n}", version=5) for n in range(5)]
    his = enriched("his", memory_id="m0", user_id="bob", version=5)
    await records.write([*memories, his, forgotten("m3", version=6)])
    await records.live([archived("m1", version=7)], TIERS)
    first = await records.belongings("alice", None, 2)
    rest = await records.belongings("alice", ("alice", first[-1].memory_id), 9)
    assert [each.memory_id for each in (*first, *rest)] == ["m0", "m1", "m2", "m4"]
    assert [each.told.tier if each.told else None for each in first] == [None, "archived"]
    assert [each.text for each in await records.belongings(None, ("alice", "m4"), 9)] == ["his"]


@pytest.mark.parametrize("seed", range(4))
async def test_record_and_index_see_the_same_tiers(
    records: MemoryRecords, vectors: MemoryVectors, seed: int
) -> None:
    """Whatever the order, the repetitions and the stage that is ahead."""
    random = Random(seed)
    states = [
        random.choice(
            [
                enriched(f"{now}", memory_id=f"m{random.randrange(3)}", version=now),
                forgotten(f"m{random.randrange(3)}", version=now),
            ]
        )
        for now in range(100, 120)
    ]
    told: list[MemoryTiered] = []
    for state in states:
        await records.write([state])
        name = f"m{random.randrange(3)}"
        when = NOW - random.randrange(30) * DAY
        event = random.choice(
            [
                recalled(name, at=when),
                archived(name, version=state.version, published_at=when),
                restored(name, version=state.version, published_at=when),
            ]
        )
        told += [each for each in await records.live([event], TIERS) if each]
    told = [each for _, each in await records.lives(None, 10)] + random.choices(told, k=20)
    random.shuffle(told)
    work = [*(("state", each) for each in states), *(("tier", each) for each in told)]
    for kind, each in random.sample(work, len(work)) + [("tier", each) for each in told]:
        await (vectors.write([each]) if kind == "state" else vectors.tier([each]))  # pyright: ignore
    hits = await found(vectors, "short", "medium", "long", "archived")
    for number in range(3):
        memory = await records.get("alice", f"m{number}")
        hit = hits.get(f"m{number}")
        assert (memory is None) == (hit is None)
        if memory and hit:
            kept = {each.memory_id for _, each in await records.lives(None, 10)}
            if memory.memory_id in kept:
                assert hit.tier == memory.tier


async def test_both_stores_tell_which_life_they_know(
    records: MemoryRecords, vectors: MemoryVectors
) -> None:
    memories = [enriched(memory_id=name, version=5) for name in ("a", "b", "c")]
    await records.write(memories)
    await vectors.write(memories)
    told = await records.live([recalled(name, at=NOW) for name in ("a", "c")], TIERS)
    await vectors.tier([each for each in told if each])
    for store in (records, vectors):
        await store.write([forgotten("c", version=6)])
    lives = {memory_key("alice", "a"): told[0].version if told[0] else -1}
    expected = {memory_key("alice", name): 0 for name in ("b", "c")} | lives
    for store in (records, vectors):
        assert {each.key: each.life for each in await store.page(None, 10)} == expected
        some = await store.fingerprints_of(list(expected))
        assert {each.key: each.life for each in some} == expected
