"""The checker: what it says of an honest store, and of each way in which one can be doctored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from pipeline.chaos.checking import STORES, Fact, Held, Letter, Seen, Told, judged, newest
from pipeline.chaos.finding import Word
from pipeline.domain.identity import memory_key
from pipeline.domain.versions import settle
from schemas.events import MemoryEnriched
from tests.builders import enriched, forgotten

POISON = "poison 17"


def fact(memory_id: str | None, version: int, content: str | None, **more: object) -> Fact:
    return replace(Fact(uuid4(), "ana", memory_id, version, content), **more)


FACTS = [
    fact("old", 1, "first"),
    fact("old", 5, "second"),
    fact("gone", 2, "was here"),
    fact("gone", 6, None),
    fact("erased", 3, "was here too"),
    fact(None, 4, None, parts=2),
    fact("keyed", 7, "said once", yields=True),
    fact("keyed", 9, "said again", yields=True),
    fact("refused", 8, "no words", refused=True),
]
REFUSED = FACTS[-1]
HELD = [
    Held("ana", "old", "second"),
    Held("ana", "gone", None),
    Held("ana", "erased", None),
    Held("ana", "keyed", "said once"),
]
LETTERS = [
    Letter("classifier", POISON, None, "is no JSON"),
    Letter("embedder", "a memory's", REFUSED.event_id, "the model refuses"),
]


def told() -> Told:
    sent = {fact.event_id: max(1, fact.parts) for fact in FACTS}
    return Told(FACTS, sent, frozenset({(POISON, "classifier")}))


def seen() -> Seen:
    """What is read where nothing went wrong."""
    notices = {
        (fact.event_id, store, part)
        for fact in FACTS
        if not fact.refused
        for store in STORES
        for part in range(max(1, fact.parts))
    }
    return Seen({"record": HELD, "index": HELD}, dict(told().sent), frozenset(notices), LETTERS)


def words(seen: Seen) -> set[tuple[Word, str]]:
    return {(finding.word, finding.where) for finding in judged(told(), seen).findings}


def holding(store: str, held: Sequence[Held]) -> Seen:
    return replace(seen(), stores={**seen().stores, store: held})


def test_where_all_is_well_nothing_is_found() -> None:
    verdict = judged(told(), seen())
    assert verdict.findings == []
    assert set(verdict.counts.values()) == {0}
    assert (verdict.memories, verdict.forgotten, verdict.dead_letters) == (2, 2, 2)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("word", "doctored"),
    [
        ("lost", HELD[1:]),
        ("lost", [Held("ana", "old", None), *HELD[1:]]),
        ("duplicated", [*HELD, HELD[0]]),
        ("duplicated", [*HELD, HELD[1]]),
        ("stale", [Held("ana", "old", "first"), *HELD[1:]]),
        ("stale", [*HELD[:3], Held("ana", "keyed", "said again")]),
        ("stale", [Held("ana", "old", "what nobody said"), *HELD[1:]]),
        ("resurrected", [HELD[0], Held("ana", "gone", "was here"), *HELD[2:]]),
        ("resurrected", [*HELD[:2], Held("ana", "erased", "was here too"), HELD[3]]),
        ("resurrected", [*HELD, Held("ana", "refused", "no words")]),
        ("resurrected", [*HELD, Held("bob", "old", "second")]),
    ],
)
def test_a_doctored_store_is_found_out_with_the_right_word(
    store: str, word: Word, doctored: Sequence[Held]
) -> None:
    assert words(holding(store, doctored)) == {(word, store)}


def test_an_event_that_no_store_told_of_is_unseen() -> None:
    silent = frozenset(n for n in seen().notices if n[:2] != (FACTS[1].event_id, "index"))
    assert words(replace(seen(), notices=silent)) == {("unseen", "index")}


def test_the_forgetting_of_a_user_must_be_told_of_for_each_partition() -> None:
    silent = seen().notices - {(FACTS[5].event_id, "record", 1)}
    assert words(replace(seen(), notices=silent)) == {("unseen", "record")}


def doctored_log(times: Callable[[int], int]) -> Seen:
    return replace(seen(), logged={**seen().logged, FACTS[0].event_id: times(1)})


def test_an_event_that_is_in_the_log_more_often_than_it_was_sent_is_duplicated() -> None:
    assert words(doctored_log(lambda sent: sent + 1)) == {("duplicated", "log")}
    assert words(doctored_log(lambda sent: sent)) == set()


def test_an_acknowledged_event_that_is_not_in_the_log_is_lost() -> None:
    logged = dict(seen().logged)
    del logged[FACTS[0].event_id]
    assert words(replace(seen(), logged=logged)) == {("lost", "log")}


def test_events_that_were_never_acknowledged_may_be_in_the_log() -> None:
    assert words(replace(seen(), logged={**seen().logged, uuid4(): 2})) == set()


@pytest.mark.parametrize("missing", LETTERS)
def test_poison_and_refused_texts_must_be_set_aside(missing: Letter) -> None:
    letters = [letter for letter in LETTERS if letter != missing]
    assert words(replace(seen(), letters=letters)) == {("lost", "dead letters")}


def test_what_was_set_aside_without_cause_is_lost_even_if_a_store_has_it() -> None:
    aside = Letter("record_writer", "a memory's", FACTS[1].event_id, "why not")
    assert words(replace(seen(), letters=[*LETTERS, aside])) == {("lost", "dead letters")}


def test_a_letter_that_a_crash_wrote_twice_is_no_harm() -> None:
    assert words(replace(seen(), letters=[*LETTERS, *LETTERS])) == set()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_newest_state_is_the_one_that_the_stores_would_choose(order: Sequence[int]) -> None:
    memory = enriched("first", memory_id="m", user_id="ana", version=10, if_absent=True)
    again = enriched("again", memory_id="m", user_id="ana", version=20, if_absent=True)
    late = forgotten("m", user_id="ana", version=5)
    events = [memory, again, late]
    known = settle([events[i] for i in order], {}, {}).writes[memory_key("ana", "m")]
    facts = [
        Fact(e.event_id, "ana", "m", e.version, text(e), yields=isinstance(e, MemoryEnriched))
        for e in events
    ]
    assert newest(facts) == {("ana", "m"): text(known)}


def text(event: object) -> str | None:
    return event.text if isinstance(event, MemoryEnriched) else None


def test_a_key_that_is_said_again_after_its_user_was_forgotten_brings_nothing_back() -> None:
    facts = [
        fact("keyed", 1, "once", yields=True),
        fact(None, 2, None, parts=1),
        fact("keyed", 3, "again", yields=True),
    ]
    assert newest(facts) == {("ana", "keyed"): None}
