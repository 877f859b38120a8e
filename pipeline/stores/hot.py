"""The vectors of users who ask often, in this process: where the engine should look first.

    ask often -> filled from the engine, page by page -> every write is told here before it is told of
    question  -> one matrix product for all who wait  -> keys, and how close anything else can be at most

Nothing is answered from here. The engine searches among these keys by its own filters, and everywhere else
too unless that is sure to change nothing. So what is kept here may be too much, and must not be too little:
every change of a point goes through `writing`, and where one fails the user is let go.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

import structlog
from cachetools import TTLCache

from pipeline import metrics
from pipeline.ending import ended
from pipeline.errors import Unavailable
from pipeline.ports import Floats
from pipeline.stores.caches import Tally
from pipeline.stores.conditions import Condition
from pipeline.stores.matrix import Arithmetic, Matrix, arithmetic
from pipeline.stores.points import Nearby, Point
from pipeline.stores.scope import of_user

MIN_ROWS: Final = 10_000
"""Memories of a user for whom it pays, measured."""
QUESTIONS: Final = 5
"""So many within OFTEN_S, and a user's vectors are read out of the engine; once in that time at most."""
OFTEN_S: Final = 600.0
_ASKERS = 10_000
"""Users whose questions are counted."""

log = structlog.get_logger(__name__)


class VectorPages(Protocol):
    """What is needed of an engine."""

    async def vectors(
        self, where: Condition, after: UUID | None
    ) -> Sequence[tuple[UUID, Floats]]: ...

    async def count(self, where: Condition) -> int: ...


Keep = Callable[[VectorPages], "HotVectors"]
"""What is to be kept of an index that is opened."""


@dataclass
class _Asker:
    questions: int = 0
    was_kept: bool = False


class HotVectors:
    """Matrices of users, within `max_bytes`; the least recently asked goes when there is no room."""

    def __init__(
        self,
        points: VectorPages,
        max_bytes: int,
        tally: Tally,
        *,
        by: Arithmetic | None = None,
        min_rows: int = MIN_ROWS,
        questions: int = QUESTIONS,
    ) -> None:
        self._points, self._max_bytes, self._tally = points, max_bytes, tally
        self._by = by or arithmetic()
        self._min_rows, self._questions = min_rows, questions
        self._users: OrderedDict[str, Matrix] = OrderedDict()
        self._filling: dict[str, Matrix] = {}
        self._askers = TTLCache[str, _Asker, float](_ASKERS, OFTEN_S)
        self._counted = 0
        self._fills: set[asyncio.Task[None]] = set()
        self._one_fill = asyncio.Lock()
        self._changing = asyncio.Lock()

    async def nearest(self, user_id: str, question: Floats, count: int) -> Nearby | None:
        """Where to look first for the memories nearest to `question`; None where that is not known."""
        matrix = self._users.get(user_id)
        found = await matrix.nearest(question, count) if matrix else None
        self._asked(user_id, had=found is not None)
        return found

    def _asked(self, user_id: str, *, had: bool) -> None:
        asker = self._askers.setdefault(user_id, _Asker())
        asker.questions += 1
        asker.was_kept |= had
        if user_id in self._users:
            self._users.move_to_end(user_id)
        elif asker.questions == self._questions:
            self._fills.add(task := asyncio.create_task(self._fill(user_id, asker)))
            task.add_done_callback(self._fills.discard)
        # Users who are too small to be kept are no misses.
        self._tally.count(hits=had, misses=asker.was_kept and not had)

    async def _fill(self, user_id: str, asker: _Asker) -> None:
        async with self._one_fill:
            try:
                asker.was_kept = await self._filled(user_id)
            except Unavailable as error:
                log.warning("vectors are not kept", reason=str(error))
            finally:
                self._filling.pop(user_id, None)
                self._fit()

    async def _filled(self, user_id: str) -> bool:
        where = of_user(user_id)
        rows = await self._points.count(where)
        after: UUID | None = None
        matrix: Matrix | None = None
        while rows >= self._min_rows and user_id not in self._users:
            began = time.monotonic()
            # With no write between what is read and what is kept of it.
            async with self._changing:
                page = await self._points.vectors(where, after)
                if page and matrix is None:
                    matrix = Matrix(self._by, rows, len(page[0][1]))
                    if matrix.bytes > self._max_bytes:
                        break
                    self._filling[user_id] = matrix
                    self._fit()
                if matrix is None or self._filling.get(user_id) is not matrix:
                    break
                for key, vector in page:
                    matrix.put(key, vector)
                if not page:
                    self._users[user_id] = matrix
                    return True
            after = page[-1][0]
            # As long as it took, as the engine holds Python's lock while it works.
            await asyncio.sleep(time.monotonic() - began)
        return False

    @asynccontextmanager
    async def writing(self, users: Collection[str]) -> AsyncGenerator[None]:
        """Around a write and what is told of it; where it fails, nobody knows what is there."""
        async with self._changing:
            try:
                yield
            except BaseException:
                for user_id in users:
                    self._let_go(user_id)
                raise
            finally:
                self._fit()

    def tell(self, user_id: str, point: Point) -> None:
        """This is what is there now. Within `writing`."""
        for kept in (self._users, self._filling):
            if matrix := kept.get(user_id):
                if point.vectors:
                    matrix.put(point.id, point.vectors.text)
                else:
                    matrix.drop(point.id)

    async def forget(self, user_id: str) -> None:
        """Keeps nothing of what was there of this user."""
        async with self._changing:
            self._let_go(user_id)
            self._fit()

    def _let_go(self, user_id: str) -> None:
        self._users.pop(user_id, None)
        self._filling.pop(user_id, None)

    def _fit(self) -> None:
        """Lets go of whom there is no room for; who is being filled goes last."""
        while (held := self._held_bytes()) > self._max_bytes:
            (self._users or self._filling).pop(next(iter(self._users or self._filling)))
            metrics.CACHE_EVICTIONS.inc()
        # Beside those of an index that this one is to replace.
        self._tally.held_bytes += held - self._counted
        self._counted = held

    def _held_bytes(self) -> int:
        return sum(matrix.bytes for matrix in (*self._users.values(), *self._filling.values()))

    async def close(self) -> None:
        await ended(*self._fills)
        self._users.clear()
        self._fit()
