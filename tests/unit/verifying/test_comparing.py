"""Two stores' fingerprints in, their differences out."""

from collections.abc import Sequence
from random import Random
from uuid import UUID

import pytest

from pipeline.domain.versions import Known, Stamp
from pipeline.ports import Fingerprint
from pipeline.verifying import comparing
from pipeline.verifying.comparing import (
    Kind,
    difference,
    differences,
    tier_differences,
    windows,
)

KEY = UUID(int=7)


def told(
    version: int = 5,
    *,
    key: UUID = KEY,
    forgotten: bool = False,
    content: str = "a",
    watermark: bool = False,
    life: int | None = None,
) -> Fingerprint:
    gone = forgotten or watermark
    known = Known(Stamp(version, 0), gone)
    return Fingerprint(key, known, "" if gone else content, watermark, life)


class Store:
    """Tells what it was given, and counts how much is asked for."""

    def __init__(self, held: Sequence[Fingerprint]) -> None:
        self.held = sorted(held, key=lambda each: each.key)
        self.pages = 0

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        self.pages += 1
        return [each for each in self.held if after is None or each.key > after][:limit]

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        return [each for each in self.held if each.key in set(keys)]


@pytest.mark.parametrize(
    ("record", "index", "kind"),
    [
        (told(), None, "missing_in_index"),
        (told(forgotten=True), None, "missing_in_index"),
        (None, told(), "missing_in_record"),
        (told(5), told(4), "stale_in_index"),
        (told(4), told(5), "stale_in_record"),
        (told(content="a"), told(content="b"), "content_differs"),
        (told(5, forgotten=True), told(4), "resurrected_in_index"),
        (told(5, forgotten=True), told(5), "resurrected_in_index"),
        (told(4), told(5, forgotten=True), "resurrected_in_record"),
        (told(5), told(4, forgotten=True), "stale_in_index"),
        (told(4, forgotten=True), told(5), "stale_in_record"),
        (told(watermark=True), None, "watermark_differs"),
        (told(4, watermark=True), told(5, watermark=True), "watermark_differs"),
    ],
)
def test_a_difference_has_a_name(
    record: Fingerprint | None, index: Fingerprint | None, kind: Kind
) -> None:
    found = difference(record, index)
    assert found is not None
    assert (found.key, found.kind) == (KEY, kind)


@pytest.mark.parametrize(
    ("record", "index", "lives"),
    [
        (told(life=3), told(life=0), (3, 0)),
        (told(life=0), told(life=3), (0, 3)),
        (told(life=3), told(life=3), None),
        # Whoever does not say is of another version.
        (told(life=3), told(life=None), None),
        # These are differences of states, and are told as such.
        (told(6, life=3), told(5, life=0), None),
        (told(life=3), None, None),
    ],
)
def test_where_memories_stand_is_compared_beside_their_states(
    record: Fingerprint, index: Fingerprint | None, lives: tuple[int, int] | None
) -> None:
    found = tier_differences([record], [index] if index else [])
    assert [each.lives for each in found] == ([lives] if lives else [])
    assert difference(told(life=3), told(life=0)) is None


def test_what_is_the_same_is_no_difference() -> None:
    assert difference(told(), told()) is None
    assert difference(told(forgotten=True), told(forgotten=True)) is None


@pytest.mark.parametrize("seed", range(20))
async def test_windows_find_what_a_comparison_of_everything_finds(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "PAGE", 7)
    random = Random(seed)
    keys = [UUID(int=random.getrandbits(128)) for _ in range(random.choice([0, 1, 7, 60]))]
    record = Store([told(key=key) for key in keys if random.random() < 0.8])
    index = Store(
        [told(random.choice([5, 5, 6]), key=key) for key in keys if random.random() < 0.8]
    )
    found = [
        each
        async for window in windows(record, index)
        for each in differences(window.record, window.index)
    ]
    assert found == list(differences(record.held, index.held))


async def test_windows_ask_for_a_page_at_a_time() -> None:
    many = [told(key=UUID(int=n + 1)) for n in range(3 * comparing.PAGE)]
    record, index = Store(many), Store(many)
    seen = [len(window.record) async for window in windows(record, index)]
    assert seen == [comparing.PAGE] * 3
    assert record.pages == index.pages == 4


async def test_a_store_that_tells_its_keys_out_of_order_is_not_believed() -> None:
    store = Store([told(key=UUID(int=1)), told(key=UUID(int=2))])
    store.held.reverse()
    with pytest.raises(AssertionError, match="out of order"):
        _ = [window async for window in windows(store, Store([]))]
