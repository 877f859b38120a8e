"""Which state wins: the greatest, whatever the order, the batches and the repetitions."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.identity import memory_key
from pipeline.domain.versions import Known, Stamp, erased, runs, settle, stamp
from schemas.events import (
    MAX_VERSION,
    Enriched,
    MemoryEnriched,
    MemoryForgotten,
    UserForgotten,
)
from tests.builders import enriched, forgotten, user_forgotten

KEYS = {name: memory_key("alice", name) for name in "ab"}


class Store:
    """The least that a store does with `settle`."""

    def __init__(self) -> None:
        self.known: dict[UUID, Known] = {}
        self.texts: dict[UUID, str] = {}
        self.forgotten_users: dict[str, int] = {}

    def write(self, batch: Sequence[Enriched]) -> list[str]:
        outcomes: list[str] = []
        for run in runs(batch):
            if isinstance(run[0], UserForgotten):
                self._forget_user(run[0])
                outcomes.append("stored")
                continue
            settled = settle(run, self.known, self.forgotten_users)
            for key, event in settled.writes.items():
                is_memory = isinstance(event, MemoryEnriched)
                self.known[key] = Known(stamp(event), forgotten=not is_memory)
                self.texts[key] = event.text if is_memory else ""
            outcomes.extend(settled.outcomes)
        return outcomes

    def _forget_user(self, forgetting: UserForgotten) -> None:
        before = self.forgotten_users.get(forgetting.user_id, 0)
        self.forgotten_users[forgetting.user_id] = max(before, forgetting.version)
        for key, known in self.known.items():
            if known.stamp.version <= forgetting.version:
                self.known[key] = erased(forgetting.version)
                self.texts[key] = ""

    @property
    def alive(self) -> dict[UUID, str]:
        return {key: text for key, text in self.texts.items() if text}


def remembered(name: str, version: int, text: str, if_absent: bool) -> MemoryEnriched:
    return enriched(text, memory_id=name, version=version, if_absent=if_absent)


def gone(name: str, version: int) -> MemoryForgotten:
    return forgotten(name, version=version)


names, versions = st.sampled_from("ab"), st.integers(1, 6)
states = st.one_of(
    st.builds(remembered, names, versions, st.sampled_from(["red", "green"]), st.booleans()),
    st.builds(gone, names, versions),
)


def cut(events: Sequence[Enriched], sizes: Sequence[int]) -> list[Sequence[Enriched]]:
    batches: list[Sequence[Enriched]] = []
    rest = events
    for size in sizes:
        batches.append(rest[:size])
        rest = rest[size:]
    return [batch for batch in [*batches, rest] if batch]


@settings(deadline=None)
@given(st.data(), st.lists(states, min_size=1, max_size=8))
def test_any_order_with_duplicates_gives_the_same_states(
    data: st.DataObject, events: list[MemoryEnriched | MemoryForgotten]
) -> None:
    repeated = data.draw(st.lists(st.sampled_from(events), max_size=4))
    order = data.draw(st.permutations([*events, *repeated]))
    store = Store()
    for batch in cut(order, data.draw(st.lists(st.integers(1, 3), max_size=6))):
        store.write(batch)
    for key in KEYS.values():
        mine = [e for e in events if memory_key(e.user_id, e.memory_id) == key]
        if not mine:
            assert key not in store.known
            continue
        winner = max(mine, key=stamp)
        assert store.known[key].stamp == stamp(winner)
        assert store.alive.get(key) == (winner.text if isinstance(winner, MemoryEnriched) else None)


@settings(deadline=None)
@given(st.data(), st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=8))
def test_a_forgotten_user_keeps_only_what_is_newer_in_any_order(
    data: st.DataObject, told: list[tuple[str, int]]
) -> None:
    events = [enriched(f"{v}", memory_id=name, version=v) for name, v in told]
    forgettings = [user_forgotten(version=v) for v in (3, 5, 5)]
    store = Store()
    for batch in cut(
        data.draw(st.permutations([*events, *forgettings])),
        data.draw(st.lists(st.integers(1, 4), max_size=6)),
    ):
        store.write(batch)
    newer = {name: max(v for n, v in told if n == name) for name, _ in told}
    assert store.alive == {KEYS[name]: f"{v}" for name, v in newer.items() if v > 5}


def test_forgotten_stays_forgotten() -> None:
    store = Store()
    outcomes = store.write(
        [forgotten("a", version=5), enriched(memory_id="a", version=4), forgotten("a", version=3)]
    )
    assert outcomes == ["stored", "forgotten", "forgotten"]
    assert store.known[KEYS["a"]].forgotten


def test_an_older_state_is_superseded() -> None:
    store = Store()
    assert store.write(
        [enriched(version=5, memory_id="a"), enriched(version=4, memory_id="a")]
    ) == [
        "stored",
        "superseded",
    ]


@pytest.mark.parametrize("other", [enriched(memory_id="a", version=1), forgotten("a", version=1)])
def test_a_state_under_an_idempotency_key_yields_to_any_other_and_to_an_earlier_one(
    other: MemoryEnriched | MemoryForgotten,
) -> None:
    first, again = (enriched(memory_id="a", version=v, if_absent=True) for v in (7, MAX_VERSION))
    assert stamp(again) < stamp(first) < stamp(other)
    assert stamp(again).version == again.version


def test_a_user_is_forgotten_up_to_the_greatest_version() -> None:
    store = Store()
    store.write([user_forgotten(version=9), user_forgotten(version=3)])
    assert store.write([enriched(version=9), enriched(version=10)]) == ["forgotten", "stored"]
    assert store.write([enriched(version=9, user_id="bob")]) == ["stored"]


def test_what_went_with_its_user_beats_every_state_up_to_that_version() -> None:
    greatest = UUID(int=2**128 - 1)
    assert stamp(enriched(version=9, event_id=greatest)) <= erased(9).stamp
    assert erased(9).stamp < stamp(enriched(version=10, event_id=UUID(int=0)))
    assert erased(9).stamp.version == 9


@given(
    st.integers(1, MAX_VERSION), st.integers(1, MAX_VERSION), st.uuids(), st.uuids(), st.booleans()
)
def test_doubles_order_stamps_as_integers_do(
    one: int, other: int, id_one: UUID, id_other: UUID, if_absent: bool
) -> None:
    stamps = [
        stamp(enriched(version=version, event_id=name, if_absent=if_absent))
        for version, name in ((one, id_one), (other, id_other))
    ]
    as_doubles = [(float(each.precedence), float(each.tie)) for each in stamps]
    assert (stamps[0] < stamps[1]) == (as_doubles[0] < as_doubles[1])
    assert all(
        Stamp(int(p), int(t)) == each for (p, t), each in zip(as_doubles, stamps, strict=True)
    )


def test_a_batch_is_cut_around_each_forgetting_of_a_user() -> None:
    a, b, c = (enriched(f"{i}") for i in range(3))
    gone, again = user_forgotten(), user_forgotten()
    assert runs([a, b, gone, again, c]) == [[a, b], [gone], [again], [c]]
    assert runs([gone]) == [[gone]]
    assert runs([]) == []
