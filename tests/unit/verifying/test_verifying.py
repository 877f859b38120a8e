"""The record and the index are compared while both are written to."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest

from pipeline.domain.identity import memory_key
from pipeline.domain.tiers import Tiers
from pipeline.domain.versions import Known, Stamp
from pipeline.ports import Fingerprint
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import IndexShape, Point
from pipeline.stores.points_in_memory import PointsInMemory
from pipeline.stores.records_in_memory import RecordsInMemory
from pipeline.verifying import verifying
from pipeline.verifying.comparing import Difference
from pipeline.verifying.logged import lacks
from pipeline.verifying.repairing import can_mend, copies
from pipeline.verifying.verifying import InTurn, Report, compare
from schemas.events import Enriched, MemoryTiered
from tests.builders import (
    DIMENSIONS,
    MODEL,
    captured,
    enriched,
    forgotten,
    recalled,
    user_forgotten,
)


class Stream:
    """Two stores, and what each has not read yet."""

    def __init__(self) -> None:
        self.records = RecordsInMemory()
        self.points: dict[UUID, Point] = {}
        self.vectors = VectorIndex(PointsInMemory(self.points), IndexShape(MODEL, DIMENSIONS))
        self.unread: list[Callable[[], Awaitable[object]]] = []
        self.stuck = False
        self.tiers = InTurn([self])
        self.waits = 0

    async def write(self, *changes: Enriched) -> None:
        await self.records.write(changes)
        await self.vectors.write(changes)

    async def caught_up(self) -> bool:
        self.waits += 1
        if self.stuck:
            return False
        reading, self.unread = self.unread, []
        for read in reading:
            await read()
        return True

    def lose(self, memory_id: str) -> None:
        del self.points[memory_key("alice", memory_id)]

    async def report(self, keep: int = 10) -> tuple[Report, list[Difference]]:
        report, taken = Report(keep), list[Difference]()

        async def take(found: Sequence[Difference]) -> None:
            taken.extend(found)

        tiers = self.tiers
        await compare(
            self.records, self.vectors, self, report, take=take, on_progress=unseen, tiers=tiers
        )
        return report, taken


def unseen(fraction: float, seen: int) -> None:
    """Nobody watches."""
    assert 0 <= fraction <= 1


@pytest.fixture
async def stream() -> Stream:
    stream = Stream()
    await stream.write(
        *(enriched(f"memory {n}", memory_id=f"m{n}") for n in range(20)),
        forgotten("gone"),
        user_forgotten("bob"),
    )
    return stream


async def test_stores_that_agree_are_equal(stream: Stream) -> None:
    report, taken = await stream.report()
    assert report.equal
    assert (report.compared, taken, stream.waits) == (22, [], 0)


async def test_a_lost_point_is_told_and_kept_for_mending(stream: Stream) -> None:
    stream.lose("m3")
    report, (found,) = await stream.report()
    assert not report.equal
    assert report.by_kind() == {"missing_in_index": 1}
    assert report.told == [found]
    assert found.key == memory_key("alice", "m3")


async def test_what_is_in_flight_is_no_difference(stream: Stream) -> None:
    late = [enriched(f"late {n}") for n in range(5)]
    await stream.records.write(late)
    stream.unread = [lambda: stream.vectors.write(late)]
    report, taken = await stream.report()
    assert report.equal
    assert (taken, stream.waits) == ([], 1)


async def test_a_difference_is_told_among_what_is_in_flight(stream: Stream) -> None:
    stream.lose("m3")
    late = enriched("late")
    await stream.records.write([late])
    stream.unread = [lambda: stream.vectors.write([late])]
    report, (found,) = await stream.report()
    assert report.by_kind() == {"missing_in_index": 1}
    assert found.key == memory_key("alice", "m3")


async def test_nobody_can_tell_while_a_writer_stands_still(stream: Stream) -> None:
    stream.lose("m3")
    stream.stuck = True
    report, taken = await stream.report()
    assert (report.differences, report.in_flight, report.equal) == (0, 1, False)
    assert taken == []


async def test_a_key_that_keeps_changing_is_left_undecided(stream: Stream) -> None:
    async def change() -> None:
        await stream.records.write([enriched("again", memory_id="m3")])
        stream.unread = [change]

    await change()
    report, _ = await stream.report()
    assert (report.differences, report.in_flight) == (0, 1)


async def lived(stream: Stream, memory_id: str) -> MemoryTiered:
    """The record has heard of a recall; the index has not."""
    (told,) = await stream.records.live([recalled(memory_id, at=datetime.now(UTC))], Tiers())
    assert told is not None
    return told


async def test_a_recall_that_the_index_never_heard_of_is_told(stream: Stream) -> None:
    await lived(stream, "m3")
    report, (found,) = await stream.report()
    assert report.by_kind() == {"tier_differs": 1}
    assert found.key == memory_key("alice", "m3")
    assert can_mend(found)


async def test_a_tier_that_is_on_its_way_is_no_difference(stream: Stream) -> None:
    told = await lived(stream, "m3")
    stream.unread = [lambda: stream.vectors.tier([told])]
    report, taken = await stream.report()
    assert report.equal
    assert (taken, stream.waits) == ([], 1)


async def test_whose_tiers_nobody_writes_just_now_is_not_known(stream: Stream) -> None:
    await lived(stream, "m3")
    stream.lose("m4")
    behind = Stream()
    behind.stuck = True
    stream.tiers = InTurn([stream, behind])
    report, (found,) = await stream.report()
    assert (report.by_kind(), report.in_flight) == ({"missing_in_index": 1}, 1)
    assert found.key == memory_key("alice", "m4")


async def test_only_the_first_differences_are_kept(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "CHUNK", 4)
    for n in range(10):
        stream.lose(f"m{n}")
    report, taken = await stream.report(keep=3)
    assert (report.differences, len(report.told), len(taken)) == (10, 3, 10)


def told(version: int, *, forgotten: bool = False) -> Fingerprint:
    key, content = memory_key("alice", "m"), "" if forgotten else f"content {version}"
    return Fingerprint(key, Known(Stamp(version, 0), forgotten), content)


OLD, NEW, GONE = told(1), told(2), told(2, forgotten=True)
MARK = Fingerprint(NEW.key, GONE.known, "", watermark=True)


@pytest.mark.parametrize(
    ("held", "mark", "expected"),
    [
        (None, None, True),
        (OLD, None, True),
        (NEW, None, False),
        (GONE, None, False),
        (None, MARK, False),
    ],
)
def test_the_record_lacks_what_it_has_neither_nor_anything_newer(
    held: Fingerprint | None, mark: Fingerprint | None, expected: bool
) -> None:
    logged = NEW if held is not GONE else OLD
    assert lacks(logged, held, mark) is expected


def test_other_content_at_the_same_version_is_lacked() -> None:
    other = Fingerprint(NEW.key, NEW.known, "other")
    assert lacks(NEW, other, None)


def test_the_record_mends_what_is_not_newer_in_the_index() -> None:
    assert can_mend(Difference(NEW.key, "missing_in_index", NEW, None))
    assert can_mend(Difference(NEW.key, "stale_in_index", NEW, OLD))
    assert can_mend(Difference(NEW.key, "resurrected_in_index", GONE, OLD))
    assert not can_mend(Difference(NEW.key, "stale_in_record", OLD, NEW))
    assert not can_mend(Difference(NEW.key, "missing_in_record", None, NEW))
    for lives in ((3, 2), (2, 3), (0, 3)):
        assert can_mend(Difference(NEW.key, "tier_differs", NEW, NEW, lives=lives))


def test_a_users_forgetting_goes_to_each_partition_again() -> None:
    event, memory = user_forgotten("bob"), captured()
    assert [(c, p) for c, p in copies(memory, 3)] == [(memory, None)]
    told = copies(event, 3)
    assert [partition for _, partition in told] == [0, 1, 2]
    assert {copy.event_id for copy, _ in told} == {event.event_id}
    assert [copy.partition for copy, _ in told if copy.type == "UserForgotten"] == [0, 1, 2]
