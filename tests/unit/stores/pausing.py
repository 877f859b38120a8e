"""Points as a store that is asked by many has them: between any two awaits something else may happen."""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from uuid import UUID

from pipeline.errors import Unavailable
from pipeline.ports import Floats
from pipeline.stores.conditions import Condition, Every
from pipeline.stores.points import Found, Nearest, Payload, Point
from pipeline.stores.points_in_memory import PointsInMemory


class PausingPoints(PointsInMemory):
    """Points that take their time, by `random`, and fail in the middle, each with a chance of `failing`."""

    def __init__(self, random: Random, failing: float) -> None:
        super().__init__()
        self.random, self.failing = random, failing

    def changed(self, point: Point) -> None:
        """This point has just been put."""

    async def pause(self) -> None:
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 5])):
            await asyncio.sleep(0)

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        await self.pause()
        there = await super().fetch(ids)
        await self.pause()
        return there

    async def put(self, points: Sequence[Point]) -> None:
        for point in points:
            await self.pause()
            if self.random.random() < self.failing:
                raise Unavailable("the index is away")
            await super().put([point])
            self.changed(point)
        await self.pause()

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        await self.pause()
        found = await super().ask(requests, where)
        await self.pause()
        return found

    async def vectors(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Floats]]:
        await self.pause()
        page = await super().vectors(where, after)
        await self.pause()
        return page
