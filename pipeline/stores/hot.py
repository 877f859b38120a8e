"""The vectors of users who ask often, in this process: where the engine should look first.

    ask often -> filled from the engine, page by page -> every write is told here before it is told of
    question  -> one matrix product for all who wait  -> keys, and how close anything else can be at most

Nothing is answered from here. The engine searches among these keys by its own filters, and everywhere else
too unless that is sure to change nothing. So what is kept here may be too much, and must not be too little:
every change of a point goes through `writing`, and where one fails the user is let go.
"""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import numpy as np
import structlog
from cachetools import TTLCache
from numpy.typing import NDArray

from pipeline import metrics
from pipeline.ending import ended
from pipeline.errors import Unavailable
from pipeline.ports import Floats
from pipeline.stores.caches import Tally
from pipeline.stores.conditions import Condition
from pipeline.stores.points import Nearby, Point, of_user

MIN_ROWS: Final = 10_000
"""Memories of a user for whom it pays, measured."""
QUESTIONS: Final = 5
"""So many within OFTEN_S, and a user's vectors are read out of the engine; once in that time at most."""
OFTEN_S: Final = 600.0
KEY_BYTES: Final = 200
"""What Python takes for a key and its place, measured."""
_ASKERS = 10_000
"""Users whose questions are counted."""
_AT_ONCE = 32
"""Questions in one product."""
_ON_THE_LOOP = 5_000
"""Rows that are compared in less than a millisecond: a thread would take longer."""

log = structlog.get_logger(__name__)


class VectorPages(Protocol):
    """What is needed of an engine."""

    async def vectors(
        self, where: Condition, after: UUID | None
    ) -> Sequence[tuple[UUID, Floats]]: ...

    async def count(self, where: Condition) -> int: ...


Keep = Callable[[VectorPages], "HotVectors"]
"""What is to be kept of an index that is opened."""


class Arithmetic(Protocol):
    """Where matrices lie, and are multiplied."""

    def empty(self, rows: int, columns: int) -> Any: ...

    def placed(self, vector: Floats) -> Any:
        """The vector, where the matrices are."""
        ...

    def nearest(
        self, matrix: Any, questions: Floats, count: int
    ) -> tuple[NDArray[np.int64], Floats]:
        """For each question the `count` rows nearest to it, in any order; and how near the last is."""
        ...


class InNumpy:
    def empty(self, rows: int, columns: int) -> Floats:
        return np.empty((rows, columns), np.float32)

    def placed(self, vector: Floats) -> Floats:
        return vector

    def nearest(
        self, matrix: Floats, questions: Floats, count: int
    ) -> tuple[NDArray[np.int64], Floats]:
        # One question by itself: for that the threads of a product cost more than they give, beside a model.
        one = len(questions) == 1
        scores = np.vecdot(matrix, questions[0])[None] if one else questions @ matrix.T
        best = np.argpartition(scores, -count, axis=1)[:, -count:]
        return best, np.take_along_axis(scores, best, axis=1).min(axis=1)


class InTorch:
    def __init__(self, torch: Any, device: str) -> None:
        self._torch, self._device = torch, device

    def empty(self, rows: int, columns: int) -> Any:
        return self._torch.empty((rows, columns), dtype=self._torch.float32, device=self._device)

    def placed(self, vector: Floats) -> Any:
        return self._torch.tensor(vector, device=self._device)

    def nearest(
        self, matrix: Any, questions: Floats, count: int
    ) -> tuple[NDArray[np.int64], Floats]:
        scores, best = (self.placed(questions) @ matrix.T).topk(count, dim=1)
        return best.cpu().numpy(), scores[:, -1].cpu().numpy()


def arithmetic() -> Arithmetic:
    """On the GPU where there is one: then whoever embeds here has loaded torch."""
    torch = sys.modules.get("torch")
    return InTorch(torch, "cuda") if torch and torch.cuda.is_available() else InNumpy()


@dataclass(eq=False)
class _Waiting:
    question: Floats
    count: int
    found: Nearby | None = None


class _Matrix:
    """One user's vectors, normalised; row n is that of key n."""

    def __init__(self, by: Arithmetic, rows: int, columns: int) -> None:
        self._by, self._columns = by, columns
        self._vectors = by.empty(rows + rows // 8 + 1, columns)
        self.keys: list[UUID] = []
        self._row_of: dict[UUID, int] = {}
        self._waiting: list[_Waiting] = []
        self._product = asyncio.Lock()

    @property
    def bytes(self) -> int:
        return len(self._vectors) * (4 * self._columns + KEY_BYTES)

    def put(self, key: UUID, vector: Floats) -> None:
        row = self._row_of.setdefault(key, len(self.keys))
        if row == len(self.keys):
            self.keys.append(key)
        if row == len(self._vectors):
            larger = self._by.empty(row + row // 4 + 1, self._columns)
            larger[:row] = self._vectors
            self._vectors = larger
        length = float(np.linalg.norm(vector))
        self._vectors[row] = self._by.placed(vector / length if length else vector)

    def drop(self, key: UUID) -> None:
        row = self._row_of.pop(key, None)
        if row is None:
            return
        last = len(self.keys) - 1
        if row != last:
            self._vectors[row] = self._vectors[last]
            self.keys[row] = self.keys[last]
            self._row_of[self.keys[row]] = row
        self.keys.pop()
        # Erased means erased, here too.
        self._vectors[last] = 0

    async def nearest(self, question: Floats, count: int) -> Nearby | None:
        """In one product with all who ask meanwhile."""
        length = float(np.linalg.norm(question))
        mine = _Waiting(question / length if length else question, count)
        self._waiting.append(mine)
        async with self._product:
            while mine in self._waiting:
                waiting = self._waiting[:_AT_ONCE]
                try:
                    await self._answer(waiting)
                finally:
                    # Whoever it failed goes on without: it may be cancelled.
                    del self._waiting[: len(waiting)]
        return mine.found

    async def _answer(self, waiting: Sequence[_Waiting]) -> None:
        rows, most = len(self.keys), max(each.count for each in waiting)
        if rows <= most:
            return
        work = (self._vectors[:rows], np.stack([each.question for each in waiting]), most)
        if rows * len(waiting) <= _ON_THE_LOOP:
            best, least = self._by.nearest(*work)
        else:
            best, least = await asyncio.to_thread(self._by.nearest, *work)
        for each, found, beyond in zip(waiting, best.tolist(), least.tolist(), strict=True):
            # Rows may have moved meanwhile: then there was a write, and whoever asks sees that.
            keys = frozenset(self.keys[row] for row in found if row < len(self.keys))
            each.found = Nearby(keys, beyond)


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
        self._users: OrderedDict[str, _Matrix] = OrderedDict()
        self._filling: dict[str, _Matrix] = {}
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
        matrix: _Matrix | None = None
        while rows >= self._min_rows and user_id not in self._users:
            began = time.monotonic()
            # With no write between what is read and what is kept of it.
            async with self._changing:
                page = await self._points.vectors(where, after)
                if page and matrix is None:
                    matrix = _Matrix(self._by, rows, len(page[0][1]))
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
