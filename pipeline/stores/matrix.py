"""The vectors of one user as one matrix: what lies nearest to all questions that wait, in one product."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.ports import Floats
from pipeline.stores.points import Nearby

KEY_BYTES: Final = 200
"""What Python takes for a key and its place, measured."""
_AT_ONCE = 32
"""Questions in one product."""
_ON_THE_LOOP = 5_000
"""Rows that are compared in less than a millisecond: a thread would take longer."""


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


class Matrix:
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
