"""The record and the index agree, whatever becomes of the stream between them.

Each store reads the same partitions in its own way: others first, other batches, some of it twice, as
after a crash. In the end both hold the same memories with the same content, and the same tombstones.
"""

from collections.abc import Sequence
from random import Random

import pytest

from pipeline.ports import MemoryRecords, MemoryVectors
from schemas.events import Enriched, MemoryEnriched, MemoryForgotten
from tests.builders import enriched, forgotten, user_forgotten

PARTITIONS = 3
USERS = ("alice", "bob")
MEMORIES = 9

Partition = Sequence[Enriched]


def history(random: Random) -> list[list[Enriched]]:
    """What three partitions hold: memories revised, forgotten, told late; users forgotten, and back."""
    partitions: list[list[Enriched]] = [[] for _ in range(PARTITIONS)]
    for now in range(100, 160):
        user_id = random.choice(USERS)
        if random.random() < 0.07:
            forgetting = user_forgotten(user_id, version=now, partitions=PARTITIONS)
            for place, partition in enumerate(partitions):
                partition.append(forgetting.model_copy(update={"partition": place}))
            continue
        number = random.randrange(MEMORIES)
        partitions[number % PARTITIONS].append(_change(random, user_id, f"m{number}", now))
    return partitions


def _change(
    random: Random, user_id: str, memory_id: str, now: int
) -> MemoryEnriched | MemoryForgotten:
    if random.random() < 0.2:
        return forgotten(memory_id, user_id=user_id, version=now)
    if random.random() < 0.2:
        return enriched(f"{now}", memory_id=memory_id, user_id=user_id, version=now, if_absent=True)
    # Some are told late: their source says that they are older.
    version = now if random.random() < 0.7 else random.randrange(90, now + 1)
    return enriched(f"{now}", memory_id=memory_id, user_id=user_id, version=version)


async def consume(
    store: MemoryRecords | MemoryVectors, partitions: Sequence[Partition], random: Random
) -> None:
    """Writes each partition in its order, in batches, some of them twice."""
    offsets = [0] * len(partitions)
    while open_ones := [i for i, part in enumerate(partitions) if offsets[i] < len(part)]:
        place = random.choice(open_ones)
        begin = max(0, offsets[place] - random.choice([0, 0, 0, 4]))
        end = offsets[place] + random.randint(1, 6)
        await store.write(partitions[place][begin:end])
        offsets[place] = end


async def told(store: MemoryRecords | MemoryVectors) -> dict[object, object]:
    return {each.key: (each.known, each.content_hash) async for each in store.fingerprints()}


@pytest.mark.parametrize("seed", range(6))
async def test_both_stores_end_with_the_same_states(
    records: MemoryRecords, vectors: MemoryVectors, seed: int
) -> None:
    partitions = history(Random(seed))
    await consume(records, partitions, Random(seed + 1_000))
    await consume(vectors, partitions, Random(seed + 2_000))
    assert await told(records) == await told(vectors)
    for user_id in USERS:
        assert await records.count(user_id) == await vectors.count(user_id)
