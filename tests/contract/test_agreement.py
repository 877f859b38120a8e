"""The record and the index agree, whatever becomes of the stream between them.

Each store reads the same partitions in its own way: others first, other batches, some of it twice, as
after a crash. In the end both hold the same memories with the same content, and the same tombstones.
"""

from collections.abc import Sequence
from random import Random

import pytest

from pipeline.domain.identity import memory_key
from pipeline.ports import Changes, MemoryRecords, MemoryVectors
from schemas.events import Enriched, MemoryEnriched, MemoryForgotten, Said
from tests.builders import enriched, fingerprints, forgotten, user_forgotten

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
    return {each.key: (each.known, each.content_hash) for each in await fingerprints(store)}


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


async def test_a_plain_event_behind_a_reading_of_it_changes_neither_store(
    records: MemoryRecords, vectors: MemoryVectors
) -> None:
    plain = enriched(memory_id="m", run_id="r", domain="other", topics=("food",))
    reading = plain.model_copy(update={"context": plain.version + 5})
    again = plain.model_copy(update={"domain": "business", "topics": ("work",)})
    for event in (plain, reading, again):
        await records.write([event])
        await vectors.write([event])
    kept = await records.get("alice", "m")
    (found,) = await vectors.states("alice", [memory_key("alice", "m")])
    assert kept
    assert found
    assert (kept.domain, kept.topics) == (found.domain, found.topics) == ("other", ("food",))


async def test_of_two_readings_with_one_number_the_record_knows_the_last_as_the_index_does(
    records: MemoryRecords,
) -> None:
    turns = [
        enriched(memory_id=f"m{number}", run_id="r", text=f"{number}", version=number + 1)
        for number in range(2)
    ]
    (first, following), key = turns, memory_key("alice", "m0")
    await records.write(turns)
    said = Said(text=following.text, occurred_at=following.occurred_at)
    right, wrong = (
        first.model_copy(update={"context": 9, "following": (each,)})
        for each in (said, Said(text="forgotten since"))
    )
    await records.write([right])
    assert not await records.contexts(Changes(read={key}))
    await records.write([wrong])
    (mended,) = await records.contexts(Changes(read={key}))
    assert mended.memory.context > 9
