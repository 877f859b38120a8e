"""Where memories stand by their use: kept beside them, carried along with them, gone with them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any
from uuid import UUID

import pytest

from pipeline.domain.identity import memory_key
from pipeline.domain.tiers import Tiers
from pipeline.ports import MemoryRecords, MemoryVectors
from pipeline.stores.index import VectorIndex
from pipeline.stores.payloads import point
from pipeline.stores.points import IndexShape, Payload, Point, Points
from pipeline.verifying.comparing import tier_differences
from pipeline.verifying.repairing import can_mend, outliving
from schemas.events import Enriched, Lived, MemoryCaptured, MemoryTiered, Tier
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


IN_THE_LOG = ("then", "forgotten", "anew")
"""The order that every writer keeps but who gets something twice or late."""
ORDERS = list(permutations((*IN_THE_LOG, "told then", "told anew")))


def log_order(order: Sequence[str]) -> bool:
    return tuple(each for each in order if each in IN_THE_LOG) == IN_THE_LOG


async def index_hears(vectors: MemoryVectors, heard: Sequence[Enriched | MemoryTiered]) -> None:
    """One step of many users."""
    await vectors.write([each for each in heard if not isinstance(each, MemoryTiered)])
    await vectors.tier([each for each in heard if isinstance(each, MemoryTiered)])


async def mended(records: MemoryRecords, vectors: MemoryVectors, keys: Sequence[UUID]) -> None:
    """As `verify --repair` does it."""
    stores = [await store.fingerprints_of(keys) for store in (records, vectors)]
    differ = tier_differences(*stores)
    assert all(can_mend(each) for each in differ)
    ahead = {each.key: each.lives[1] for each in differ if each.lives and each.lives[1]}
    words = [
        outliving(event, ahead[memory_key(event.user_id, event.memory_id)])
        for event in await records.publishable(list(ahead))
        if isinstance(event, MemoryCaptured)
    ]
    assert len(words) == len(ahead)
    await records.live(words, TIERS)
    await vectors.tier([told for _, told in await records.lives(None, 1_000)])


@pytest.mark.parametrize("with_user", [True, False])
async def test_the_life_of_a_forgotten_memory_is_not_that_of_the_one_that_came_anew(
    records: MemoryRecords, vectors: MemoryVectors, with_user: bool
) -> None:
    """In every order in which an index may hear of both, and whoever tells: its clock may be any."""
    chosen = [each for n, each in enumerate(ORDERS) if log_order(each) or n % 4 == 0]
    users = {f"user {n}": each for n, each in enumerate(chosen)}
    # Of every other user the first state yields to any other, and is from a clock that is ahead.
    yields = {"if_absent": True, "version": 500}
    then = [
        enriched("then", memory_id="a", user_id=each, **(yields if n % 2 else {"version": 3}))
        for n, each in enumerate(users)
    ]
    until = 600 if with_user else 5
    gone = [
        user_forgotten(each, version=until)
        if with_user
        else forgotten("a", user_id=each, version=until)
        for each in users
    ]
    anew = [enriched("anew", memory_id="a", user_id=each, version=until + 5) for each in users]
    secrets = [enriched("secret", memory_id="b", user_id=each, version=3) for each in users]
    stands = [consolidated("a", "b", user_id=each, published_at=NOW, version=4) for each in users]
    again = [recalled("a", user_id=each, at=NOW - DAY) for each in [*users][::3]]

    await records.write([*then, *secrets])
    told_then = await records.live(stands, TIERS)
    await records.write([*gone, *anew])
    told_anew = {told.user_id: told for told in await records.live(again, TIERS) if told}
    assert all(told_then)
    work: dict[str, Sequence[Enriched | MemoryTiered | None]] = {
        "then": then,
        "forgotten": gone,
        "anew": anew,
        "told then": told_then,
        "told anew": [told_anew.get(each) for each in users],
    }
    keys = {memory_key(each, "a"): log_order(order) for each, order in users.items()}
    assert isinstance(vectors, VectorIndex)
    for step in range(len(work)):
        heard = [work[order[step]][number] for number, order in enumerate(users.values())]
        await index_hears(vectors, [each for each in heard if each])
        for key, payload in (await vectors.points.fetch(list(keys))).items():
            if keys[key] and payload["version"] == until + 5:
                assert not payload.get("consolidated")

    await mended(records, vectors, list(keys))
    stores = [await store.fingerprints_of(list(keys)) for store in (records, vectors)]
    assert not tier_differences(*stores)
    for payload in (await vectors.points.fetch(list(keys))).values():
        named = (payload["version"], payload.get("tier", "short"), payload.get("consolidated", []))
        assert named == (until + 5, "short", [])


async def test_a_life_that_says_not_of_which_state_it_is_is_of_none_that_came_anew(
    vectors: MemoryVectors,
) -> None:
    """As publishers told it before they said so."""
    await vectors.write([enriched(memory_id=name, version=5) for name in ("a", "b")])
    await vectors.write([forgotten("a", version=6), enriched(memory_id="a", version=7)])
    await vectors.tier([strong("a"), strong("b")])
    assert {name: hit.tier for name, hit in (await found(vectors)).items()} == {
        "a": "short",
        "b": "long",
    }


async def test_revisions_and_repetitions_know_that_their_memory_was_forgotten_before(
    vectors: MemoryVectors,
) -> None:
    anew = enriched(memory_id="a", version=7)
    revised = enriched("revised", memory_id="a", version=8)
    for states in ([enriched(memory_id="a", version=5)], [forgotten("a", version=6), anew]):
        await vectors.write(states)
    for state in (anew, revised, anew, revised):
        await vectors.write([state])
        await vectors.tier([strong("a", of_precedence=5)])
        assert (await found(vectors))["a"].tier == "short"
    await vectors.tier([strong("a", of_precedence=7)])
    assert (await found(vectors))["a"].tier == "long"


async def test_the_record_tells_a_life_of_the_state_that_there_is(records: MemoryRecords) -> None:
    await records.write([enriched(memory_id="a", version=5, if_absent=True)])
    (first,) = await records.live([recalled("a", at=NOW)], TIERS)
    assert first is not None
    assert first.of_precedence == -5
    await records.write([enriched("revised", memory_id="a", version=7)])
    (again,) = await records.live([recalled("a", at=NOW)], TIERS)
    assert [again] == [told for _, told in await records.lives(None, 10)]
    assert again == first.model_copy(update={"of_precedence": 7})


async def test_the_record_tells_what_was_remembered_anew(records: MemoryRecords) -> None:
    for memory_id, versions in {"a": (6, 8), "b": (6,), "c": ()}.items():
        await records.write([enriched(memory_id=memory_id, version=5)])
        for version in versions:
            await records.write([forgotten(memory_id, version=version)])
            if memory_id != "b":
                await records.write([enriched(memory_id=memory_id, version=version + 1)])
    ours = enriched(memory_id="a", user_id="bob", version=9)
    await records.write([forgotten("a", user_id="bob", version=7), ours])
    first = await records.remembered_anew(None, 1)
    keys = [memory_key(each.user_id, each.memory_id) for each in first]
    rest = await records.remembered_anew(keys[0], 9)
    assert len(first) == 1
    assert {(each.user_id, each.memory_id, each.version) for each in (*first, *rest)} == {
        ("alice", "a", 8),
        ("bob", "a", 7),
    }
    assert not await records.remembered_anew(memory_key(rest[0].user_id, "a"), 9)


@pytest.mark.parametrize("record_hears", [("old", "word", "anew"), ("old", "anew", "word")])
async def test_what_is_said_anew_is_found_though_the_archived_state_has_a_greater_version(
    records: MemoryRecords, vectors: MemoryVectors, record_hears: Sequence[str]
) -> None:
    """A state under an idempotency key yields to a plain one, also where its clock was ahead."""
    users = {f"user {n}": each for n, each in enumerate(permutations(("old", "word", "anew")))}
    old = [
        enriched("old", memory_id="a", user_id=each, version=500, if_absent=True) for each in users
    ]
    anew = [enriched("anew", memory_id="a", user_id=each, version=50) for each in users]
    words = [archived("a", user_id=each, version=600, of_version=500) for each in users]
    told: Sequence[MemoryTiered | None] = []
    for what in record_hears:
        if what == "word":
            told = await records.live(words, TIERS)
        else:
            await records.write(old if what == "old" else anew)
    assert all(told)
    work = {"old": old, "anew": anew, "word": told}
    for step in range(3):
        heard = [work[order[step]][number] for number, order in enumerate(users.values())]
        await index_hears(vectors, [each for each in heard if each])
        for user_id, order in users.items():
            hidden = order[: step + 1] in {("word",), ("old", "word")}
            assert [*await found(vectors, user_id=user_id)] == ([] if hidden else ["a"])
    for user_id in users:
        memory = await records.get(user_id, "a")
        assert memory is not None
        assert (memory.text, memory.tier) == ("anew", "short")
    assert {each.precedence for each in await records.belongings(None, None, 9)} == {50}


async def test_a_state_that_yields_is_archived_until_something_wins_over_it(
    records: MemoryRecords, vectors: MemoryVectors
) -> None:
    old = enriched("old", memory_id="a", version=500, if_absent=True)
    for store in (records, vectors):
        await store.write([old])
    told = await records.live([archived("a", version=600, of_version=500)], TIERS)
    await index_hears(vectors, [each for each in told if each])
    later = enriched("repeated", memory_id="a", version=900, if_absent=True)
    for store in (records, vectors):
        await store.write([old, later])
    memory = await records.get("alice", "a")
    assert memory is not None
    assert memory.tier == "archived"
    assert not await found(vectors)
    assert (await found(vectors, "archived"))["a"].text == "old"


async def test_what_was_archived_before_precedences_were_told_is_archived_still(
    vectors: MemoryVectors,
) -> None:
    assert isinstance(vectors, VectorIndex)
    before = point(enriched(memory_id="a", version=5), SHAPE)
    life = {"life": 100, "tier": "archived", "strength": 0.0, "archived_version": 50}
    await vectors.points.put([Point(before.id, before.payload | life, before.vectors)])
    await vectors.write([enriched("revised", memory_id="a", version=50)])
    assert not await found(vectors)
    await vectors.write([enriched("anew", memory_id="a", version=51)])
    assert (await found(vectors))["a"].text == "anew"


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
