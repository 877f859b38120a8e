"""The index in this process: Qdrant Edge, the server's engine without the server.

A directory has one owner, which both writes and searches. The engine holds Python's lock while it works,
so writes are cut small: a search waits for one piece, not for a batch. Search is exact, by the index on
the user. The engine's `optimize` is never called: at 60,000 memories it stops the process for 12 s and
doubles the disk and memory used, and search is no faster for it.

What was written outlives a power cut because the engine's log is on the disk; the engine's own `flush`,
which writes out everything else and stops the process meanwhile, is only called to keep the log short.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from pipeline.errors import Unavailable
from pipeline.ports import Floats
from pipeline.stores.conditions import READ_FIELDS, Condition, Every, without
from pipeline.stores.edge_files import check_shape, make_indexes
from pipeline.stores.edge_words import filter_of, nearest, point_of, terms_of
from pipeline.stores.hot import Keep
from pipeline.stores.index import VectorIndex
from pipeline.stores.points import (
    FOUND_FIELDS,
    PAGE,
    STATE_FIELDS,
    Amendment,
    Found,
    IndexShape,
    Nearest,
    Payload,
    Point,
    in_pieces,
    replaceable,
)
from schemas.events import SparseVector

_PIECE = 32
"""Points written at once: some 5 ms."""
_PIECE_NUMBERS = 200_000
"""Numbers of vectors that go with them at most, beyond those of one point: some 50 ms."""
_OF_A_WORD = 100
"""So many numbers a word or a pair of metadata costs: there may be thousands in a point."""
_VECTORS = 64
"""Vectors read at once: some 5 ms."""
_ROWS = 16
"""Vectors of one question compared at once with all of two hundred memories: some .1 s where those are long."""
_LEAST_READ = 8
"""Points that a condition without an index is looked up for at once, and more while that is quick."""
_READ_S = 0.03
"""How long that may take."""
_LOG_POINTS = 4_000
"""Points that the engine's log may hold: some 80 MB, and a second when it is read again."""

T = TypeVar("T")


async def open_folder(folder: Path, shape: IndexShape, *, keep: Keep | None = None) -> VectorIndex:
    """The index that was made in one folder of a directory. Raises Refused."""
    # One thread: the engine's calls stay in order and off the event loop.
    thread = ThreadPoolExecutor(1, thread_name_prefix="qdrant-edge")
    try:
        shard = await asyncio.get_running_loop().run_in_executor(thread, _open, folder, shape)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    points = EdgePoints(shard, folder / "shard" / "wal", thread)
    return VectorIndex(points, shape, sole_writer=True, hot=keep(points) if keep else None)


_Part = tuple[Nearest, Nearest]
"""A request, and a part of its vectors, all of them where they are few."""


class EdgePoints:
    """Points over one open shard; it owns the thread that the shard is called in."""

    def __init__(self, shard: edge.EdgeShard, log: Path, thread: ThreadPoolExecutor) -> None:
        self._shard, self._log, self._thread = shard, log, thread
        self._logged = 0
        self._closed = False

    async def fetch(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        records = await self._call(self._shard.retrieve, list(ids), STATE_FIELDS, False)
        return {_uuid(record.id): record.payload or {} for record in records}

    async def read(self, ids: Sequence[UUID]) -> Mapping[UUID, Payload]:
        records = await self._call(self._shard.retrieve, list(ids), True, False)
        return {_uuid(record.id): record.payload or {} for record in records}

    async def put(self, points: Sequence[Point]) -> None:
        # Whoever else asks the engine comes in between.
        for piece in in_pieces(points, _cost, most_points=_PIECE, most_cost=_PIECE_NUMBERS):
            await self._call(self._put, piece)
        self._logged += len(points)

    def _put(self, points: Sequence[Point]) -> None:
        self._shard.update(
            edge.UpdateOperation.upsert_points(
                [point_of(point) for point in points], condition=filter_of(replaceable(points))
            )
        )

    async def amend(self, amendments: Sequence[Amendment]) -> None:
        for begin in range(0, len(amendments), _PIECE):
            await self._call(self._amend, amendments[begin : begin + _PIECE])
        self._logged += len(amendments)

    def _amend(self, amendments: Sequence[Amendment]) -> None:
        for each in amendments:
            self._shard.update(
                edge.UpdateOperation.set_payload_by_filter(filter_of(each.where), each.payload)
            )

    async def settle(self) -> None:
        if self._logged >= _LOG_POINTS:
            await self._call(self._shard.flush)
            self._logged = 0
            return
        # Cut short it would leave its files open.
        await asyncio.shield(self._sync_log())

    async def _sync_log(self) -> None:
        # Opened between two writes, as writes rename these files; then out of the engine's way.
        await asyncio.to_thread(_sync, await self._call(_opened, self._log))

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        met = await self._met(where)
        told: dict[int, Sequence[Found]] = {}
        for turn in _turns(requests):
            await self._call(self._ask, turn, met, told)
        return [told[id(request)] for request in requests]

    async def _met(self, where: Every) -> edge.Filter:
        """What meets `where`. What is in no index of its own is looked up for a few points at a time.

        For each such condition the engine reads all that a point holds.
        """
        rest = without(where, READ_FIELDS)
        quick = filter_of(rest)
        if rest == where:
            return quick
        slow = filter_of(where)
        ids: set[edge.PointId] = set()
        waiting = await self._all_ids(quick)
        few = _LEAST_READ
        while waiting:
            began = time.monotonic()
            some = edge.HasIdCondition(set(waiting[-few:]))
            found, _ = await self._call(self._ids, edge.Filter(must=[some, slow]), few, None)
            ids |= set(found)
            del waiting[-few:]
            took_s = time.monotonic() - began
            few = max(_LEAST_READ, few // 2 if took_s > _READ_S else min(2 * few, PAGE))
        return edge.Filter(must=[quick, edge.HasIdCondition(ids)])

    async def _all_ids(self, where: edge.Filter) -> "list[edge.PointId]":
        ids: list[edge.PointId] = []
        after: edge.PointId | None = None
        while True:
            page, after = await self._call(self._ids, where, PAGE, after)
            ids += page
            if after is None:
                return ids

    def _ids(
        self, where: edge.Filter, limit: int, first: "edge.PointId | None"
    ) -> "tuple[list[edge.PointId], edge.PointId | None]":
        request = edge.ScrollRequest(
            offset=first, limit=limit, filter=where, with_payload=False, with_vector=False
        )
        records, after = self._shard.scroll(request)
        return [record.id for record in records], after

    def _ask(
        self, turn: Sequence[_Part], where: edge.Filter, told: dict[int, Sequence[Found]]
    ) -> None:
        for request, part in turn:
            some: edge.Filter | edge.HasIdCondition = where
            if request.among:
                # Met `where` a moment ago. Forgotten meanwhile it has no vectors, and an id is never another's.
                some = edge.HasIdCondition(
                    {each.id for among in request.among for each in told[id(among)]}
                )
            found = self._looked_up(part, edge.Filter(must=[some, filter_of(request.within)]))
            told[id(request)] = _added(told[id(request)], found) if id(request) in told else found

    def _looked_up(self, request: Nearest, where: edge.Filter) -> Sequence[Found]:
        if request.first:
            # One condition for all of them: a condition each takes longer than to search everywhere.
            near = edge.HasIdCondition(set(request.first.keys))
            found = self._nearest(request, edge.Filter(must=[where, near]))
            if request.suffices(found):
                return found
        return self._nearest(request, where)

    def _nearest(self, request: Nearest, where: edge.Filter) -> Sequence[Found]:
        found = self._shard.query(
            edge.QueryRequest(
                limit=request.limit,
                query=nearest(request),
                filter=where,
                with_payload=False if request.among else FOUND_FIELDS,
                with_vector=["bm25"] if request.with_terms else False,
            )
        )
        return [
            Found(_uuid(point.id), point.payload or {}, point.score, terms_of(point.vector))
            for point in found
        ]

    async def page(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Payload]]:
        # The offset is the first point of the page, so the one before it comes again.
        request = edge.ScrollRequest(
            offset=after, limit=PAGE + 1, filter=filter_of(where), with_payload=STATE_FIELDS
        )
        records, _ = await self._call(self._shard.scroll, request)
        page = [(_uuid(record.id), record.payload or {}) for record in records]
        return [(key, payload) for key, payload in page if key != after][:PAGE]

    async def vectors(self, where: Condition, after: UUID | None) -> Sequence[tuple[UUID, Floats]]:
        """The vectors of meaning of some points beyond `after`, in the order of their ids."""
        request = edge.ScrollRequest(
            offset=after,
            limit=_VECTORS + 1,
            filter=filter_of(where),
            with_payload=False,
            with_vector=["text"],
        )
        page = await self._call(self._vectors, request)
        return [(key, vector) for key, vector in page if key != after][:_VECTORS]

    def _vectors(self, request: edge.ScrollRequest) -> Sequence[tuple[UUID, Floats]]:
        records, _ = self._shard.scroll(request)
        # Here too, as it takes longer than to read them: a list for each comes out of the engine.
        return [(_uuid(record.id), np.array(_text(record), np.float32)) for record in records]

    async def count(self, where: Condition) -> int:
        return await self._call(self._shard.count, edge.CountRequest(filter=filter_of(where)))

    async def close(self) -> None:
        """Closes the shard, once."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._call(self._shard.close)
        finally:
            self._thread.shutdown()

    async def _call(self, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *arguments)
        except Exception as error:
            # The engine raises bare exceptions. Ours are right, so what fails is under it: the disk.
            if type(error) is Exception and "Service runtime error" in str(error):
                raise Unavailable(f"Qdrant Edge cannot work, look at its disk: {error}") from error
            raise


def _open(folder: Path, shape: IndexShape) -> edge.EdgeShard:
    check_shape(folder, shape)
    shard = edge.EdgeShard.load(str(folder / "shard"))
    make_indexes(shard)
    return shard


@dataclass(frozen=True, slots=True)
class _Files:
    """Descriptors, and what closes them."""

    there: Sequence[int]
    closing: ExitStack


def _opened(log: Path) -> _Files:
    """The log's files, and their folder."""
    there: list[int] = []
    with ExitStack() as opening:
        for path in (log, *log.iterdir()):
            there.append(os.open(path, os.O_RDONLY))
            opening.callback(os.close, there[-1])
        return _Files(there, opening.pop_all())


def _sync(files: _Files) -> None:
    with files.closing:
        for file in files.there:
            os.fsync(file)


def _cost(point: Point) -> int:
    words = [*point.payload.get("metadata_terms", ()), *point.payload.get("metadata_numbers", ())]
    return (point.vectors.numbers if point.vectors else 0) + _OF_A_WORD * len(words)


def _turns(requests: Sequence[Nearest]) -> Iterator[Sequence[_Part]]:
    """What is asked at once: whoever else asks the engine comes in between."""
    turn: list[_Part] = []
    rows = 0
    for request in requests:
        for part, more in _parts(request):
            if turn and rows + more > _ROWS:
                yield turn
                turn, rows = [], 0
            turn.append((request, part))
            rows += more
    if turn:
        yield turn


def _parts(request: Nearest) -> Iterator[tuple[Nearest, int]]:
    """The request by some of its vectors at a time, and how many: what each finds adds up."""
    vector = request.vector
    if isinstance(vector, SparseVector) or vector.ndim == 1:
        yield request, 1
        return
    for begin in range(0, len(vector), _ROWS):
        some = vector[begin : begin + _ROWS]
        yield replace(request, vector=some), len(some)


def _added(one: Sequence[Found], other: Sequence[Found]) -> Sequence[Found]:
    """What was found by some vectors and by others, best first."""
    found = {each.id: each for each in one}
    for each in other:
        before = found.get(each.id)
        found[each.id] = replace(each, score=each.score + before.score) if before else each
    return sorted(found.values(), key=lambda each: -each.score)


def _text(record: Any) -> Sequence[float]:
    return record.vector["text"]


def _uuid(id: object) -> UUID:
    return id if isinstance(id, UUID) else UUID(str(id))
