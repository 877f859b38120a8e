"""Whatever happens between two requests: nothing is forgotten that is there, lost, or told twice."""

from itertools import pairwise

import pytest

from pipeline.sources.mem0 import Rules
from pipeline.sources.mem0_sim.memories import Order
from tests.mem0.simulating import GONE, Log, World, simulated

ORDERS: list[Order] = ["created_desc", "created_asc", "updated_desc", "id"]


def is_subsequence(part: list[str], whole: list[str]) -> bool:
    """Whether `part` comes in `whole`, in this order."""
    rest = iter(whole)
    return all(one in rest for one in part)


def check(log: Log, world: World) -> None:
    """What has to hold at the end."""
    assert log.forgotten_while_there == []
    assert len(set(log.event_ids)) == len(log.event_ids)
    for memory_id, states in log.states.items():
        assert all(one != other for one, other in pairwise(states)), "told twice"
        assert is_subsequence(states, world.truth[memory_id]), "told what was no more"
        versions = log.versions[memory_id]
        assert versions == sorted(set(versions))
    there = {memory_id: states[-1] for memory_id, states in log.states.items()}
    for memory_id, row in world.rows.items():
        if row["user_id"] is not None:
            assert there.get(memory_id) == world.truth[memory_id][-1], "lost"
    assert {i for i, state in there.items() if state != GONE} <= world.rows.keys()


@pytest.mark.parametrize(
    ("seed", "order"), [(seed, ORDERS[seed % len(ORDERS)]) for seed in range(8)]
)
async def test_writes_between_pages_and_replicas_that_lag(seed: int, order: Order):
    world = World(seed, order)
    check(await simulated(world), world)


@pytest.mark.parametrize("seed", range(5))
async def test_crashes_before_and_after_what_is_kept(seed: int):
    world = World(seed, crashes=0.1, faults=0.03)
    check(await simulated(world), world)


@pytest.mark.parametrize("seed", range(5))
async def test_memories_that_change_hands_or_are_put_back(seed: int):
    world = World(seed, lag_s=5, writes=0.3, crashes=0.02, restless=True, behind_s=seed * 450.0)
    rules = Rules(lag_s=5, sweep_interval_s=100, page_size=20, batch=5, at_once=1)
    check(await simulated(world, ticks=150, quiet=30, rules=rules), world)


@pytest.mark.parametrize("seed", range(5))
async def test_states_that_say_they_are_older_than_the_one_before(seed: int):
    world = World(seed, lag_s=5, writes=0.3, turns_back=True)
    rules = Rules(lag_s=5, sweep_interval_s=100, page_size=20, batch=5, at_once=1)
    check(await simulated(world, ticks=100, quiet=30, rules=rules), world)


async def test_the_same_seed_tells_the_same():
    logs = [await simulated(World(3), ticks=10) for _ in range(2)]
    assert logs[0].event_ids == logs[1].event_ids
