"""Every observed change is on memory.events once, whatever Mem0, Kafka or another poller does meanwhile."""

import asyncio
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import Halted, Refused
from pipeline.kafka.connection import KafkaConnection
from pipeline.sources.mem0_ledger import last_cycle
from pipeline.sources.mem0_sim.server import Mem0Sim
from schemas.events import MemoryCaptured, MemoryForgotten, MemoryRevised, Published
from tests.mem0.running import RULES, committed, polling, until

pytestmark = pytest.mark.connected


def hold(sim: Mem0Sim, user: str | None = "alice", number: int = 1, **given: Any) -> list[str]:
    """So many new memories of a user; their ids."""
    scope = {"user_id": user, "agent_id": "bot", "app_id": None, "run_id": "talk"}
    texts = [f"{user} said {sim.memories.new_id()}" for _ in range(number)]
    return [row["id"] for row in sim.memories.add(texts, scope, given)]


def kinds(events: list[Published]) -> Counter[str]:
    return Counter(type(event).__name__ for event in events)


async def seen(kafka: KafkaConnection, prefix: str, **wanted: int) -> list[Published]:
    """The events, once there are so many of each kind."""

    async def there() -> bool:
        found = kinds(await committed(kafka, prefix))
        return all(found[kind] >= number for kind, number in wanted.items())

    await until(there)
    return await committed(kafka, prefix)


async def cycles(kafka: KafkaConnection, prefix: str, more: int = 2) -> None:
    """Waits until so many more cycles have ended."""
    before = await last_cycle(kafka, prefix)
    goal = (before.cycle if before else 0) + more

    async def there() -> bool:
        ended = await last_cycle(kafka, prefix)
        return ended is not None and ended.cycle >= goal

    await until(there)


async def test_adds_updates_and_deletes(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    (first,) = hold(sim, metadata={"source": "chat"})
    async with polling(kafka, prefix, address):
        (captured,) = await seen(kafka, prefix, MemoryCaptured=1)
        sim.memories.update(first, {"text": "I ski"})
        await seen(kafka, prefix, MemoryRevised=1)
        sim.memories.delete(first)
        events = await seen(kafka, prefix, MemoryForgotten=1)
        await cycles(kafka, prefix)
    assert isinstance(captured, MemoryCaptured)
    assert (captured.memory_id, captured.user_id) == (first, "alice")
    assert (captured.agent_id, captured.run_id) == ("bot", "talk")
    assert captured.metadata == {"source": "chat"}
    assert kinds(await committed(kafka, prefix)) == kinds(events)
    assert [type(e) for e in events] == [MemoryCaptured, MemoryRevised, MemoryForgotten]
    assert [e.version for e in events] == sorted({e.version for e in events})


async def test_a_second_start_tells_nothing_twice(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    hold(sim, "alice", 120)
    hold(sim, "bob", 3)
    for _ in range(2):
        async with polling(kafka, prefix, address):
            await seen(kafka, prefix, MemoryCaptured=123)
            await cycles(kafka, prefix)
    assert len(await committed(kafka, prefix)) == 123


async def test_a_memory_that_is_no_users_is_published_to_nobody(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    hold(sim, None)
    hold(sim, "alice")
    async with polling(kafka, prefix, address):
        await cycles(kafka, prefix)
    assert [event.user_id for event in await committed(kafka, prefix)] == ["alice"]


async def test_what_cannot_be_an_event_is_counted_and_costs_the_others_nothing(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    (long,) = hold(sim)
    sim.memories.update(long, {"text": "x" * 20_000})
    hold(sim, "alice")
    async with polling(kafka, prefix, address, interval_s=3_600.0):
        await cycles(kafka, prefix, 1)
        first = await last_cycle(kafka, prefix)
    async with polling(kafka, prefix, address):
        await cycles(kafka, prefix)
    assert first is not None
    assert (first.added, first.errors) == (1, 1)
    assert len(await committed(kafka, prefix)) == 1


@pytest.mark.parametrize("kind", ["rate_seconds", "rate_date", "busy_seconds", "busy_date"])
async def test_retry_after_is_heeded(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str, kind: str
):
    hold(sim)
    sim.faults.clock = sim.memories.clock
    asked_at: list[float] = []
    respond, left = sim.respond, [1]

    def once(request: Any) -> Any:
        asked_at.append(asyncio.get_running_loop().time())
        if request.path == "/v3/memories/" and left:
            left.pop()
            asked_at.clear()
            fault = sim.faults.made(kind)
            return fault.status, dict(fault.headers), fault.body
        return respond(request)

    sim.respond = once  # pyright: ignore[reportAttributeAccessIssue]
    async with polling(kafka, prefix, address):
        await until(lambda: not left)
        limited_at = asyncio.get_running_loop().time()
        await seen(kafka, prefix, MemoryCaptured=1)
    assert asked_at[0] - limited_at > 0.7


@pytest.mark.parametrize("share", [0.3])
async def test_faults_delete_nothing(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str, share: float
):
    hold(sim, "alice", 30)
    sim.faults.retry_after_s = 0
    sim.faults.clock = sim.memories.clock
    sim.faults.kinds = ("rate_seconds", "busy_seconds", "broken", "gateway", "no_json")
    async with polling(kafka, prefix, address):
        await seen(kafka, prefix, MemoryCaptured=30)
        sim.faults.share = share
        (added,) = hold(sim, "bob")
        await seen(kafka, prefix, MemoryCaptured=31)
        sim.memories.delete(added)
        events = await seen(kafka, prefix, MemoryForgotten=1)
    assert kinds(events) == {"MemoryCaptured": 31, "MemoryForgotten": 1}


async def test_an_expired_key_halts_and_deletes_nothing(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    hold(sim, "alice", 3)
    async with polling(kafka, prefix, address) as task:
        await seen(kafka, prefix, MemoryCaptured=3)
        sim.project.keys = {"another"}
        await asyncio.wait([task], timeout=30)
        with pytest.raises(Refused, match="MEM0_API_KEY"):
            task.result()
    assert kinds(await committed(kafka, prefix)) == {"MemoryCaptured": 3}


async def test_another_project_halts_and_deletes_nothing(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    hold(sim, "alice", 3)
    async with polling(kafka, prefix, address) as task:
        await seen(kafka, prefix, MemoryCaptured=3)
        sim.project.project_id = "another"
        sim.memories.rows.clear()
        await asyncio.wait([task], timeout=30)
        with pytest.raises(Refused, match="another"):
            task.result()
    async with polling(kafka, prefix, address) as task:
        await asyncio.wait([task], timeout=30)
        with pytest.raises(Refused, match="project-stand-in"):
            task.result()
    assert kinds(await committed(kafka, prefix)) == {"MemoryCaptured": 3}


async def test_a_mass_disappearance_asks_and_goes_on_when_it_was_meant(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    ids = hold(sim, "alice", 60)
    async with polling(kafka, prefix, address) as task:
        await seen(kafka, prefix, MemoryCaptured=60)
        for memory_id in ids[:30]:
            del sim.memories.rows[memory_id]
        hold(sim, "bob", 0)
        sim.memories.log.append(sim.memories.log[-1])
        await asyncio.wait([task], timeout=30)
        with pytest.raises(Halted, match="30 of 60") as asked:
            task.result()
    assert kinds(await committed(kafka, prefix)) == {"MemoryCaptured": 60}
    (said,) = re.findall(r"MEM0_ALLOW_DELETES=(\S+),", str(asked.value))
    meant = replace(RULES, permission=said)
    async with polling(kafka, prefix, address, rules=meant):
        await seen(kafka, prefix, MemoryForgotten=30)
        await cycles(kafka, prefix)
    # The same permission, started with again: what else disappears was not meant.
    for memory_id in ids[30:]:
        sim.memories.delete(memory_id)
    async with polling(kafka, prefix, address, rules=meant) as task:
        await asyncio.wait([task], timeout=30)
        with pytest.raises(Halted, match="30 of 30"):
            task.result()
    assert kinds(await committed(kafka, prefix))["MemoryForgotten"] == 30


async def test_an_empty_listing_deletes_nothing(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    hold(sim, "alice", 40)
    respond = sim.respond

    def empty(request: Any) -> Any:
        if request.path != "/v3/memories/":
            return respond(request)
        body = b'{"count":0,"next":null,"previous":null,"results":[]}'
        return 200, {"content-type": "application/json"}, body

    async with polling(kafka, prefix, address) as task:
        await seen(kafka, prefix, MemoryCaptured=40)
        sim.respond = empty  # pyright: ignore[reportAttributeAccessIssue]
        await cycles(kafka, prefix, 3)
        assert not task.done()
    assert kinds(await committed(kafka, prefix)) == {"MemoryCaptured": 40}


async def test_a_404_that_is_not_mem0s_deletes_nothing(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    (first, *_) = hold(sim, "alice", 5)
    respond = sim.respond

    def lost(request: Any) -> Any:
        if request.path.startswith("/v1/memories/"):
            return 404, {"content-type": "text/html"}, b"<html>no such page</html>"
        return respond(request)

    async with polling(kafka, prefix, address):
        await seen(kafka, prefix, MemoryCaptured=5)
        sim.respond = lost  # pyright: ignore[reportAttributeAccessIssue]
        sim.memories.delete(first)
        await asyncio.sleep(3)
        assert kinds(await committed(kafka, prefix)) == {"MemoryCaptured": 5}
        sim.respond = respond
        await seen(kafka, prefix, MemoryForgotten=1)


async def test_a_second_poller_takes_over_and_nothing_is_told_twice(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    hold(sim, "alice", 300)
    owning = asyncio.Event()
    async with polling(kafka, prefix, address, on_ready=owning.set) as first:
        # Whoever starts last takes over: the first must have started.
        await owning.wait()
        async with polling(kafka, prefix, address) as second:
            await seen(kafka, prefix, MemoryCaptured=300)
            hold(sim, "bob", 5)
            await seen(kafka, prefix, MemoryCaptured=305)
            await asyncio.wait([first], timeout=30)
            with pytest.raises(Refused, match="taken over"):
                first.result()
            assert not second.done()
    events = await committed(kafka, prefix)
    assert len({event.event_id for event in events}) == len(events) == 305


async def test_a_hint_brings_the_next_cycle_forward_and_many_are_one(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("producers.mem0_poller.HINTED_PAUSE_S", 1.0)
    hinted = asyncio.Event()
    async with polling(kafka, prefix, address, interval_s=600.0, hinted=hinted):
        await cycles(kafka, prefix, 1)
        hold(sim)
        hinted.set()
        await seen(kafka, prefix, MemoryCaptured=1)
        before = await last_cycle(kafka, prefix)
        for _ in range(30):
            hinted.set()
            await asyncio.sleep(0.1)
        after = await last_cycle(kafka, prefix)
    assert before is not None
    assert after is not None
    assert 1 <= after.cycle - before.cycle <= 4


def revised(events: list[Published]) -> list[str]:
    """The texts of revisions."""
    return [event.text for event in events if isinstance(event, MemoryRevised)]


async def test_a_deleted_memory_stays_deleted_for_readers_of_its_version(
    kafka: KafkaConnection, prefix: str, sim: Mem0Sim, address: str
):
    (first,) = hold(sim)
    async with polling(kafka, prefix, address):
        await seen(kafka, prefix, MemoryCaptured=1)
        sim.memories.update(first, {"text": "I ski"})
        assert revised(await seen(kafka, prefix, MemoryRevised=1)) == ["I ski"]
        sim.memories.delete(first)
        events = await seen(kafka, prefix, MemoryForgotten=1)
    (forgotten,) = [event for event in events if isinstance(event, MemoryForgotten)]
    assert forgotten.version > max(e.version for e in events if e is not forgotten)
