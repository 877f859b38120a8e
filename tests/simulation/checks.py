"""What must be true when the weather has cleared and everything has arrived."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from consumers.embedder import mixed
from pipeline.domain.identity import context_hash, memory_key, user_key
from pipeline.domain.versions import Known, Stamp
from pipeline.domain.weights import Weights
from pipeline.domain.wording import worded
from pipeline.kafka.records import event_id_in
from pipeline.models.classifier import HeuristicClassifier
from pipeline.ports import Fingerprint
from pipeline.searching.search import SearchPorts, search
from pipeline.stores.payloads import watermark
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import STORED as NOTICES
from schemas.events import MemoryEnriched, MemoryStored, UserErased, UserForgotten
from schemas.search import EventRef, ReplyTo, SearchAsked
from schemas.topics import DEAD, ENRICHED, STORED
from tests.builders import fingerprints
from tests.simulation.history import (
    UNEMBEDDABLE,
    Expected,
    MemoryId,
    expected,
    expected_outcome,
    expected_watermarks,
)
from tests.simulation.kafka import home
from tests.simulation.network import finished

if TYPE_CHECKING:
    from tests.simulation.world import World

_CLASSIFIER = HeuristicClassifier()


def check(world: "World") -> None:
    """Raises AssertionError where a promise is broken."""
    events = world.history.events
    states = expected(events)
    told = sorted(_fingerprint(*state) for state in states.items())
    assert finished(_fingerprints(world.records)) == told, "the record differs"
    assert finished(_fingerprints(world.index)) == told, "the index differs"
    for (user_id, memory_id), state in states.items():
        _check_memory(world, user_id, memory_id, state)
    for user_id in {event.user_id for event in events}:
        _check_user(world, user_id, states)
    _check_conversations(world)
    _check_watermarks(world, events)
    _check_log(world, states)
    _check_receipts(world, events)
    _check_dead_letters(world)


async def _fingerprints(store: Any) -> Sequence[tuple[Any, ...]]:
    return sorted([_plain(each) for each in await fingerprints(store)])


def _plain(told: Fingerprint) -> tuple[Any, ...]:
    return (told.key, told.known.stamp, told.known.forgotten, told.content_hash)


def _fingerprint(memory: MemoryId, state: Expected) -> tuple[Any, ...]:
    known = Known(Stamp(state.precedence, state.tie), forgotten=state.text is None)
    return _plain(Fingerprint(memory_key(*memory), known, state.content_hash))


def _check_memory(world: "World", user_id: str, memory_id: str, state: Expected) -> None:
    kept = finished(world.records.get(user_id, memory_id))
    assert (kept.text if kept else None) == state.text
    assert finished(world.records.is_forgotten(user_id, memory_id)) == (state.text is None)
    for entry in finished(world.records.history(user_id, memory_id)):
        gone = state.text is None and entry.version <= abs(state.precedence)
        assert not (gone and entry.text), "the audit trail remembers what was forgotten"


def _check_user(world: "World", user_id: str, states: dict[MemoryId, Expected]) -> None:
    """A search finds all memories of its user, and nobody else's."""
    mine = {
        name: each.text for (user, name), each in states.items() if user == user_id and each.text
    }
    from tests.simulation.world import ToyEmbedder

    event = world.history.events[0]
    asked = SearchAsked(
        question_id=event.event_id,
        asked_at=event.published_at,
        deadline=event.published_at,
        reply_to=ReplyTo(topic="answers", partition=0),
        user_id=user_id,
        text=f"what did {user_id} say?",
        limit=100,
    )
    model: Any = _Now(ToyEmbedder(world))
    records: Any = world.records
    ports = SearchPorts(model, _CLASSIFIER, records, world.index, Weights())
    answered = finished(search(asked, ports))
    assert {hit.memory_id: hit.text for hit in answered.hits} == mine
    assert finished(world.records.count(user_id)) == len(mine)
    assert finished(world.index.count(user_id)) == len(mine)


def _check_conversations(world: "World") -> None:
    """Every memory has heard what the record says beside it, and lies in the index where that puts it."""
    from tests.simulation.world import ToyEmbedder

    records: Any = world.records
    model: Any = ToyEmbedder(world)
    for key, state in records._states.items():
        if not isinstance(state, MemoryEnriched) or state.run_id is None:
            continue
        # Nobody told what was said before: what a reading has made out must not become a publisher's word.
        assert not state.preceding, f"{key} keeps what it heard, whatever becomes of that"
        now = records._conversations.understood(state)
        heard = records._conversations.heard[key]
        assert heard == context_hash(now.preceding, now.following), f"{key} is out of context"
        point = world.disk.points._points[key]  # pyright: ignore[reportPrivateUsage]
        assert point.payload["context"] == state.context
        if state.context and point.vectors:
            own, *beside = [
                model._one(worded(said)).text
                for said in (state, *reversed(now.preceding), *now.following)
            ]
            middle = len(now.preceding)
            place = mixed(own, [beside[:middle], beside[middle:]])
            assert np.allclose(point.vectors.text, place), f"{key} lies elsewhere"


class _Now:
    """An embedder that answers without a network."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self.model, self.dimensions = embedder.model, embedder.dimensions

    async def embed(self, texts: Sequence[str]) -> Sequence[Any]:
        return [self._embedder._one(text) for text in texts]

    async def close(self) -> None:
        pass


def _check_watermarks(world: "World", events: Sequence[Any]) -> None:
    marks = expected_watermarks(events)
    points = finished(world.disk.points.fetch([user_key(user_id) for user_id in marks]))
    assert {user: watermark(points[user_key(user)]).version for user in marks} == marks
    kept = world.records._marks  # pyright: ignore[reportPrivateUsage]
    assert {user_id: mark.version for user_id, mark in kept.items()} == marks


def _check_log(world: "World", states: dict[MemoryId, Expected]) -> None:
    """What compaction would leave of memory.enriched: of a forgotten memory not a word."""
    for (user_id, memory_id), state in states.items():
        logged = _logged(world, str(memory_key(user_id, memory_id)).encode())
        if not logged:
            continue
        last = logged[-1]
        if state.text is None:
            assert not isinstance(last, MemoryEnriched), (
                f"the log ends with a forgotten text: {last}"
            )
        elif not world.direct:
            # With the whole stream there is who gives a state its vectors again.
            assert isinstance(last, MemoryEnriched), f"the log ends with a forgetting: {last}"
            key = memory_key(user_id, memory_id)
            held = world.records._states[key]  # pyright: ignore[reportPrivateUsage]
            assert isinstance(held, MemoryEnriched)
            if last.event_id == held.event_id:
                assert last.context == held.context, f"the log ends with an older reading: {last}"


def _logged(world: "World", key: bytes) -> Sequence[Any]:
    """The events under a key; none where some stand in other partitions, which Kafka compacts alone."""
    records = [
        record
        for record in world.log.records(ENRICHED.under("memory"))
        if record.key == key and record.value not in world.history.unusable
    ]
    if any(record.partition != home(key, world.log.partitions) for record in records):
        return []
    return [ENRICHED_EVENTS.validate_json(record.value) for record in records]


def _check_receipts(world: "World", events: Sequence[Any]) -> None:
    """Each store says what became of each event, and has told so."""
    states, watermarks = expected(events), expected_watermarks(events)
    heard = {_heard(record) for record in world.log.records(STORED.under("memory"))}
    for event in events:
        ref = EventRef(
            event_id=event.event_id,
            memory_id=getattr(event, "memory_id", None),
            version=event.version,
            if_absent=getattr(event, "if_absent", False),
        )
        place = event.partition if isinstance(event, UserForgotten) else None
        for name, store in (("record", world.records), ("index", world.index)):
            (outcome,) = finished(store.outcomes(event.user_id, [ref]))
            assert outcome == expected_outcome(event, states, watermarks), f"{name}: {ref}"
            assert (event.event_id, name, place) in heard, f"nobody was told: {name} {ref}"


def _heard(record: Any) -> Any:
    match NOTICES.validate_json(record.value):
        case MemoryStored() as notice:
            return (notice.event_id, notice.store, None)
        case UserErased() as notice:
            return (notice.event_id, notice.store, notice.partition)
        case _:
            return None


def _check_dead_letters(world: "World") -> None:
    """Nothing but what nobody can use is set aside, and all of that is."""
    unusable = world.history.unusable
    sorry = {e.event_id for e in world.history.events if UNEMBEDDABLE in getattr(e, "text", "")}
    for letter in world.log.records(DEAD.under("memory")):
        assert letter.value in unusable or event_id_in(letter) in sorry, f"set aside: {letter}"
    assert {letter.value for letter in world.dead()} == unusable
