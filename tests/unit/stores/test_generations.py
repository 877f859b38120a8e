"""A kept answer is never older than it may be, whatever happens between any two awaits."""

from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from pipeline.stores.generations import OwnGenerations, SharedGenerations
from tests.unit.stores.interleaving import Interleaving

SEEDS = range(20)
MORE_SEEDS = range(400)
OWNED = pytest.mark.parametrize("owned", [True, False], ids=["one owner", "many processes"])


@OWNED
async def test_a_kept_answer_is_one_that_the_index_could_have_given(owned: bool) -> None:
    kept = asked = 0
    for seed in SEEDS:
        history = Interleaving(seed, owned=owned)
        try:
            await history.run()
        except AssertionError as error:
            error.add_note(f"Interleaving({seed}, owned={owned})")
            raise
        kept, asked = kept + history.kept, asked + history.asked
    assert kept > asked / 20, "nothing is kept, so nothing was tested"


# Ways to break it, each of which has to be noticed.


@asynccontextmanager
async def _nothing(self: Any, users: Collection[str]) -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def _before_only(self: Any, users: Collection[str]) -> AsyncGenerator[None]:
    for user_id in users:
        await self.before_telling(user_id)
    yield


@asynccontextmanager
async def _own_before_only(self: Any, users: Collection[str]) -> AsyncGenerator[None]:
    for user_id in users:
        self._known[user_id] = uuid4()
    yield


@asynccontextmanager
async def _own_after_only(self: Any, users: Collection[str]) -> AsyncGenerator[None]:
    yield
    for user_id in users:
        self._known[user_id] = uuid4()


async def _telling_at_once(self: Any, user_id: str) -> None: ...


@pytest.mark.parametrize(
    ("owned", "target", "name", "broken"),
    [
        (False, SharedGenerations, "changing", _nothing),
        (False, SharedGenerations, "changing", _before_only),
        (False, SharedGenerations, "before_telling", _telling_at_once),
        (True, OwnGenerations, "changing", _nothing),
        (True, OwnGenerations, "changing", _own_before_only),
        (True, OwnGenerations, "changing", _own_after_only),
    ],
)
async def test_what_would_break_it_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owned: bool, target: Any, name: str, broken: Any
) -> None:
    monkeypatch.setattr(target, name, broken)
    with pytest.raises(AssertionError, match=r"of the past|though it was gone"):
        await _all_of(MORE_SEEDS, owned)


async def _all_of(seeds: Iterable[int], owned: bool) -> None:
    for seed in seeds:
        await Interleaving(seed, owned=owned).run()
