"""Where much disappears at once, nothing is deleted until a person has said so: not by starting again either."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.errors import Halted
from pipeline.sources.mem0 import Rules, collection_of, folder_of
from pipeline.sources.mem0_oss import LocalMem0
from pipeline.sources.mem0_watching import Watching
from tests.mem0.simulating import GONE, PROJECT, Log, LogBook, Reads, World


def world() -> World:
    """Mem0 to which nobody writes but the test."""
    made = World(0, lag_s=0)
    made.quiet = True
    made.sim.memories.oddities = 0.0
    return made


def hold(world: World, number: int) -> list[str]:
    scope = {"user_id": "alice", "agent_id": None, "app_id": None, "run_id": None}
    texts = [f"fact {world.chance.getrandbits(60)}" for _ in range(number)]
    ids = [row["id"] for row in world.sim.memories.add(texts, scope, {})]
    world.note()
    return ids


def lose(world: World, ids: Sequence[str]) -> None:
    for memory_id in ids:
        world.sim.memories.delete(memory_id)
    world.note()


async def started(world: World, log: Log, permission: str | None = None) -> str | None:
    """A process that ends after one cycle; what a person has to say where it was halted."""
    rules = Rules(lag_s=0, batch=10, permission=permission)
    world.passes(60)
    try:
        await Watching(Reads(world), LogBook(log, world), rules, clock=world.clock).cycle(PROJECT)
    except Halted as halted:
        (said,) = re.findall(r"MEM0_ALLOW_DELETES=(\S+),", str(halted))
        return said
    return None


def forgotten(log: Log) -> int:
    return sum(states[-1] == GONE for states in log.states.values())


@pytest.mark.parametrize(
    ("before", "lost", "hours"), [(20, 20, 2), (20, 20, 0), (100, 30, 2), (100, 30, 0)]
)
async def test_to_start_again_is_no_permission_whatever_was_added(
    before: int, lost: int, hours: int
):
    mem0, log = world(), Log()
    ids = hold(mem0, before)
    await started(mem0, log)
    mem0.passes(hours * 3_600)
    lose(mem0, ids[:lost])
    names = set[str | None]()
    for _ in range(4):
        hold(mem0, 60)
        names.add(await started(mem0, log))
    # It asks for the same at each start, and tells what is new meanwhile.
    (said,) = names
    assert said
    assert (forgotten(log), len(log.states)) == (0, before + 240)
    assert await started(mem0, log, said) is None
    assert forgotten(log) == lost
    assert log.last
    assert not log.last.asked
    # From then on all that is known counts: 20 of those are few.
    lose(mem0, list(mem0.rows)[-20:])
    assert await started(mem0, log, said) is None
    assert forgotten(log) == lost + 20


async def test_as_many_others_put_in_their_place_do_not_hide_what_is_missing():
    mem0, log = world(), Log()
    ids = hold(mem0, 20)
    rows = [mem0.rows[memory_id] for memory_id in ids]
    await started(mem0, log)
    lose(mem0, ids)
    hold(mem0, 100)
    assert await started(mem0, log)
    # Mem0's number is what is known, and their time is too old to be listed as new.
    for row in rows:
        mem0.sim.memories.put({**row, "id": str(mem0.sim.memories.new_id())})
    mem0.note()
    for _ in range(3):
        assert await started(mem0, log)
    assert forgotten(log) == 0


async def test_what_mem0_shows_again_in_part_is_asked_about_until_it_shows_all():
    mem0, log = world(), Log()
    ids = hold(mem0, 100)
    await started(mem0, log)
    rows = [mem0.rows[memory_id] for memory_id in ids[:30]]
    lose(mem0, ids[:30])
    assert await started(mem0, log)
    for row in rows[:25]:
        mem0.sim.memories.put(row)
    assert await started(mem0, log)
    for row in rows[25:]:
        mem0.sim.memories.put(row)
    assert await started(mem0, log) is None
    assert (forgotten(log), log.last and log.last.asked) == (0, False)


async def test_a_first_sync_that_has_not_ended_asks_again_too():
    mem0, log = world(), Log()
    ids = hold(mem0, 30)
    await started(mem0, log)
    # Ended in the middle of it: what was found is kept, and no cycle.
    log.last = None
    lose(mem0, ids)
    names = set[str | None]()
    for _ in range(3):
        hold(mem0, 100)
        names.add(await started(mem0, log))
    (said,) = names
    assert said
    assert forgotten(log) == 0
    assert await started(mem0, log, said) is None
    assert forgotten(log) == 30


async def test_another_collection_in_the_folder_is_another_project(tmp_path: Path):
    def holds(*names: str) -> None:
        told = {"collections": {name: {} for name in names}, "aliases": {}}
        (tmp_path / "meta.json").write_text(json.dumps(told))

    holds("our_notes", "our_notes_entities")
    reads = LocalMem0(tmp_path)
    before = await reads.project()
    assert (folder_of(before), collection_of(before)) == (str(tmp_path), "our_notes")
    holds("our_notes", "mem0")
    assert await reads.project() != before
    assert await LocalMem0(tmp_path, "our_notes").project() == before
