"""A consumer that lost its partition writes what it read before: every engine turns it away."""

from uuid import UUID

import pytest

from pipeline.ports import MemoryVectors
from pipeline.stores.index import VectorIndex
from pipeline.stores.payloads import point
from pipeline.stores.points import IndexShape, Point
from schemas.events import MemoryEnriched, MemoryForgotten
from tests.builders import DIMENSIONS, MODEL, enriched, fingerprints, forgotten, user_forgotten

SHAPE = IndexShape(MODEL, DIMENSIONS)


def late(*events: MemoryEnriched | MemoryForgotten) -> list[Point]:
    return [point(event, SHAPE) for event in events]


async def states(vectors: MemoryVectors) -> dict[UUID, object]:
    return {each.key: each for each in await fingerprints(vectors)}


async def test_what_is_older_does_not_replace_what_is_newer(vectors: MemoryVectors) -> None:
    assert isinstance(vectors, VectorIndex)
    await vectors.write([enriched(memory_id="m", version=5), forgotten("gone", version=5)])
    await vectors.write([enriched(memory_id="his", user_id="bob", version=5)])
    await vectors.write([user_forgotten("bob", version=7)])
    before = await states(vectors)
    await vectors.points.put(late(forgotten("m", version=3)))
    again = enriched(memory_id="m", version=6, if_absent=True)
    await vectors.points.put(late(again))
    await vectors.points.put(
        late(
            enriched(memory_id="m", version=4),
            enriched(memory_id="gone", version=4),
            enriched(memory_id="his", user_id="bob", version=7),
        )
    )
    assert await states(vectors) == before


async def test_a_write_of_one_state_does_not_hold_up_its_neighbours(
    vectors: MemoryVectors,
) -> None:
    assert isinstance(vectors, VectorIndex)
    await vectors.write([enriched(memory_id=f"m{i}", version=5) for i in range(4)])
    versions = {"m0": 4, "m1": 6, "m2": 5, "new": 1}
    await vectors.points.put(
        late(*(enriched(memory_id=name, version=v) for name, v in versions.items()))
    )
    told = [each.known.stamp.version for each in await fingerprints(vectors)]
    assert sorted(told) == [1, 5, 5, 5, 6]


@pytest.mark.parametrize(("tie", "wins"), [(0, False), (2**52 - 1, True)])
async def test_of_two_states_of_one_version_the_random_part_of_the_event_id_decides(
    vectors: MemoryVectors, tie: int, wins: bool
) -> None:
    assert isinstance(vectors, VectorIndex)
    await vectors.write([enriched("first", memory_id="m", version=5, event_id=UUID(int=2**51))])
    before = await states(vectors)
    await vectors.points.put(
        late(enriched("other", memory_id="m", version=5, event_id=UUID(int=tie)))
    )
    assert (await states(vectors) != before) == wins


async def context_of(vectors: VectorIndex, event: MemoryEnriched) -> object:
    key = point(event, SHAPE).id
    return (await vectors.points.fetch([key]))[key].get("context")


async def test_of_equal_states_the_one_stays_that_knows_more_of_its_conversation(
    vectors: MemoryVectors,
) -> None:
    assert isinstance(vectors, VectorIndex)
    learnt = enriched(memory_id="m", version=5)
    for context, kept in ((0, 0), (7, 7), (0, 7), (6, 7), (7, 7), (8, 8)):
        await vectors.points.put(late(learnt.model_copy(update={"context": context})))
        assert await context_of(vectors, learnt) == kept
    await vectors.points.put(late(enriched(memory_id="m", version=6)))
    assert await context_of(vectors, learnt) == 0


async def test_a_point_from_before_there_were_contexts_is_replaced_by_its_equal(
    vectors: MemoryVectors,
) -> None:
    assert isinstance(vectors, VectorIndex)
    learnt = enriched(memory_id="m", version=5)
    (old,) = late(learnt)
    del old.payload["context"]
    await vectors.points.put([old])
    assert await context_of(vectors, learnt) is None
    await vectors.points.put(late(learnt))
    assert await context_of(vectors, learnt) == 0


async def test_a_memory_that_comes_again_does_not_forget_its_conversation(
    vectors: MemoryVectors,
) -> None:
    assert isinstance(vectors, VectorIndex)
    learnt = enriched(memory_id="m", version=5)
    anew = learnt.model_copy(update={"context": 7})
    assert await vectors.write([learnt, anew]) == ["stored", "stored"]
    assert await vectors.write([learnt]) == ["stored"]
    assert await vectors.write([anew, learnt]) == ["stored", "stored"]
    assert await context_of(vectors, learnt) == 7
