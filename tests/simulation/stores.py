"""The twins of the stores, behind a network: the record is transactions, the index is many requests."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from pipeline.domain.versions import Outcome, runs
from pipeline.ports import Changes, Reading
from pipeline.stores.conditions import Condition, Every
from pipeline.stores.points import Amendment, Found, Nearest, Payload, Point
from pipeline.stores.points_in_memory import PointsInMemory
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import Enriched, MemoryForgotten, Published, UserForgotten
from tests.simulation.network import Network, finished


class RemoteRecords:
    """The record, written from afar. What stands between two forgettings of users is one transaction."""

    def __init__(self, twin: RecordsInMemory, network: Network) -> None:
        self._twin, self._network = twin, network

    async def write(self, changes: Sequence[Enriched]) -> Sequence[Outcome]:
        def partly() -> None:
            cut = runs(changes)
            for run in cut[: self._network.random.randrange(len(cut))]:
                finished(self._twin.write(run))

        return await self._network.request(
            lambda: finished(self._twin.write(changes)), partly=partly
        )

    async def publishable(self, keys: Sequence[UUID]) -> Sequence[Published]:
        return await self._network.request(lambda: finished(self._twin.publishable(keys)))

    async def gone_with(
        self, forgetting: UserForgotten, after: str, limit: int
    ) -> Sequence[MemoryForgotten]:
        # Pages of two, so that there is something between them.
        limit = min(limit, 2)
        return await self._network.request(
            lambda: finished(self._twin.gone_with(forgetting, after, limit))
        )

    async def contexts(self, changes: Changes) -> Sequence[Reading]:
        return await self._network.request(lambda: finished(self._twin.contexts(changes)))

    async def readings(self, keys: Sequence[UUID]) -> Mapping[UUID, int]:
        return await self._network.request(lambda: finished(self._twin.readings(keys)))


class Disk:
    """What the index has on its disk: points in memory are lost with the power until they are settled."""

    def __init__(self) -> None:
        self.points = PointsInMemory()
        self.outages = 0
        self._unsettled: list[tuple[UUID, Point | None]] = []

    def put(self, point: Point) -> None:
        there = self._kept.get(point.id)
        finished(self.points.put([point]))
        self._unsettled.append((point.id, there))

    def amend(self, amendment: Amendment) -> None:
        before = dict(self._kept)
        finished(self.points.amend([amendment]))
        changed = [key for key, point in self._kept.items() if point is not before[key]]
        self._unsettled += [(key, before[key]) for key in changed]

    def settle(self) -> None:
        self._unsettled.clear()

    def lose_power(self, share: float) -> None:
        """The last of what was not settled is as if it had never been written."""
        self.outages += 1
        for _ in range(round(len(self._unsettled) * share)):
            key, before = self._unsettled.pop()
            if before is None:
                self._kept.pop(key, None)
            else:
                self._kept[key] = before
        self.settle()

    @property
    def _kept(self) -> dict[UUID, Point]:
        return self.points._points  # pyright: ignore[reportPrivateUsage]


class RemotePoints:
    """The points, from afar: each call may fail, be late, or be done in part."""

    def __init__(self, disk: Disk, network: Network) -> None:
        self._disk, self._network = disk, network

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        return await self._ask(lambda: finished(self._disk.points.fetch(ids)))

    async def read(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        return await self.fetch(ids)

    async def put(self, points: Sequence[Point]) -> None:
        def put(some: Sequence[Point]) -> None:
            for point in some:
                self._disk.put(point)

        done = self._network.random.randint(0, len(points))
        await self._ask(lambda: put(points), partly=lambda: put(points[:done]))

    async def amend(self, amendments: Sequence[Amendment]) -> None:
        def amend(some: Sequence[Amendment]) -> None:
            for amendment in some:
                self._disk.amend(amendment)

        done = self._network.random.randint(0, len(amendments))
        await self._ask(lambda: amend(amendments), partly=lambda: amend(amendments[:done]))

    async def settle(self) -> None:
        await self._ask(self._disk.settle)

    async def page(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Payload]]:
        # Pages of two, so that there is something between them.
        return await self._ask(lambda: finished(self._disk.points.page(where, after))[:2])

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        return await self._ask(lambda: finished(self._disk.points.ask(requests, where)))

    async def count(self, where: Condition) -> int:
        return await self._ask(lambda: finished(self._disk.points.count(where)))

    async def close(self) -> None:
        pass

    async def _ask(self, work: Callable[[], Any], **more: Any) -> Any:
        outages = self._disk.outages
        # What was on its way when the power went never arrives.
        return await self._network.request(
            work, dropped=lambda: outages != self._disk.outages, **more
        )
