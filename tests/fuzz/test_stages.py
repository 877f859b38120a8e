"""Any bytes on a stage's topic: each record is used or set aside, and the stage goes on.

FUZZ_INPUTS=1000000 FUZZ_SEED=7 pytest tests/fuzz      longer, and other inputs
"""

import os
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from consumers import (
    classifier,
    contextualizer,
    embedder,
    lifecycle,
    record_writer,
    tier_writer,
    vector_writer,
)
from pipeline.domain.tiers import Tiers
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.ports import Embedding, MemoryRecords, MemoryVectors
from pipeline.stage import Stage
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import (
    CLASSIFIED as CLASSIFIED_EVENTS,
)
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import LIVED, MemoryCaptured, MemoryClassified, MemoryEnriched, MemoryTiered
from schemas.events import (
    PUBLISHED as PUBLISHED_EVENTS,
)
from schemas.events import STORED as STORED_NOTICES
from schemas.search import SearchFilter
from tests.builders import DIMENSIONS, MODEL, enriched, forgotten, user_forgotten, vectors_in_memory
from tests.fuzz.mutating import Mutator
from tests.fuzz.stream import NOW_MS, Line, quiet_loop
from tests.simulation.network import finished
from tests.unit.schemas.test_events import GOLDEN

INPUTS = int(os.environ.get("FUZZ_INPUTS", "10000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
AT_ONCE = 500
NOW = NOW_MS * 1_000

PUBLISHED = [
    GOLDEN[name] for name in ("MemoryCaptured", "MemoryRevised", "MemoryForgotten", "UserForgotten")
]
CLASSIFIED = [GOLDEN[name] for name in ("MemoryClassified", "MemoryForgotten", "UserForgotten")]


def ours(message: Any) -> Any:
    return message.model_dump(mode="json", exclude_none=True)


LIVED_EVENTS = [
    GOLDEN[name] | {"memory_id": memory_id}
    for name in ("MemoryRecalled", "MemoryArchived", "MemoryRestored", "MemoryConsolidated")
    for memory_id in ("m1", "m2", "m3")
]
NOTICES = [
    *(
        GOLDEN["MemoryStored"] | {"store": "record", "memory_id": f"m{n}"} | more
        for n in (1, 2, 3)
        for more in ({"context": 0, "held": 0}, {"outcome": "forgotten"}, {})
    ),
    *(GOLDEN[name] for name in ("UserErased", "MemorySetAside", "MemoryRedriven")),
]
TIERED_EVENTS = [GOLDEN["MemoryTiered"] | {"memory_id": f"m{n}"} for n in (1, 2, 3)]
ENRICHED = [
    ours(enriched(memory_id="m1", version=NOW, metadata={"a": [1, "x"], "b": {"c": None}})),
    ours(enriched("Something else", memory_id="m2", version=NOW + 1, if_absent=True)),
    ours(enriched("His own", user_id="bob", memory_id="m1", version=NOW + 2)),
    ours(forgotten("m1", version=NOW + 3)),
    ours(user_forgotten("bob", version=NOW + 1)),
]
CANARIES = [
    enriched(f"song {n}", user_id="canary", memory_id=f"c{n}", version=NOW) for n in range(3)
]


def inputs(messages: Sequence[Any], good: bytes) -> Sequence[Sequence[bytes | None]]:
    """INPUTS of them, in parts; each part ends with a good one."""
    mutator = Mutator(Random(SEED), messages)
    return [
        [None, *(mutator.one() for _ in range(AT_ONCE)), good] for _ in range(-(-INPUTS // AT_ONCE))
    ]


def feed(stage: Stage, messages: Sequence[Any], good: Any, *, tells_all: bool = True) -> None:
    """Each record comes out once or is set aside once, and the good ones come through.

    A stage that does not tell of all it takes may leave some out.
    """
    written = good.model_dump_json(exclude_none=True).encode()
    for number, values in enumerate(inputs(messages, written)):
        with quiet_loop(number) as (loop, network):
            line = Line(loop, network, stage)
            line.feed(values)
            dead = [dict(letter.headers)["n"] for letter in line.dead()]
            out = len(line.made()) + len(dead)
            assert out <= len(line.taken()) >= len(values)
            assert out == len(line.taken()) or not tells_all
            assert len(set(dead)) == len(dead)
            assert f"{len(values) - 1}".encode() not in dead, "a good one was set aside"


def test_the_classifier_goes_on() -> None:
    feed(
        classifier.stage(HeuristicClassifier()), PUBLISHED, CANARIES[0].becomes(MemoryCaptured, {})
    )


class ToyEmbedder(HashingEmbedder):
    """At once, in as few dimensions as there can be."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        return [self._embedding(text) for text in texts]


def test_the_embedder_goes_on() -> None:
    good = ENRICHED_EVENTS.validate_python(GOLDEN["MemoryEnriched"] | {"topics": ["food"]})
    assert isinstance(good, MemoryEnriched)
    fields = {"domain": "other", "topics": ("food",), "importance": 0.5}
    feed(
        embedder.stage(ToyEmbedder(DIMENSIONS), CacheInMemory()),
        CLASSIFIED,
        MemoryClassified.model_validate(good.model_dump() | fields | {"type": "MemoryClassified"}),
    )


def test_the_record_writer_goes_on() -> None:
    records = RecordsInMemory()
    finished(records.write(CANARIES))
    feed(record_writer.stage(records), ENRICHED, CANARIES[0])
    unharmed(records)


def test_the_vector_writer_goes_on() -> None:
    vectors = vectors_in_memory(MODEL, DIMENSIONS)
    finished(vectors.write(CANARIES))
    feed(vector_writer.stage(vectors), ENRICHED, CANARIES[0])
    unharmed(vectors)
    for user_id in ("alice", "bob", "canary", "alice ", "é", "x"):
        found = finished(
            vectors.search(
                user_id,
                Embedding(np.ones(DIMENSIONS, np.float32), np.zeros((0, 64), np.float16)),
                filter=SearchFilter(),
                limit=100,
                min_score=None,
            )
        )
        mine = {hit.memory_id for hit in found if hit.text.startswith("song")}
        assert bool(mine) == (user_id == "canary"), "a memory was found by somebody else"


def test_the_contextualizer_goes_on() -> None:
    records = RecordsInMemory()
    turns = [enriched(memory_id=f"m{n}", run_id="r", version=NOW + n) for n in (1, 2, 3)]
    finished(records.write([*CANARIES, *turns]))
    good = STORED_NOTICES.validate_python(NOTICES[0])
    feed(contextualizer.stage(records), NOTICES, good, tells_all=False)
    unharmed(records)


def test_the_lifecycle_goes_on() -> None:
    records = RecordsInMemory()
    memories = [enriched(memory_id=f"m{n}", version=NOW) for n in (1, 2, 3)]
    finished(records.write([*CANARIES, *memories]))
    good = LIVED.validate_python(GOLDEN["MemoryRecalled"] | {"memory_id": "m1"})
    feed(lifecycle.stage(records, Tiers()), LIVED_EVENTS, good, tells_all=False)
    unharmed(records)
    lives = finished(records.lives(None, 100))
    assert {told.memory_id for _, told in lives} == {"m1", "m2", "m3"}


def test_the_tier_writer_goes_on() -> None:
    vectors = vectors_in_memory(MODEL, DIMENSIONS)
    memories = [enriched(memory_id=f"m{n}", version=NOW) for n in (1, 2, 3)]
    finished(vectors.write([*CANARIES, *memories]))
    good = MemoryTiered.model_validate(TIERED_EVENTS[0])
    feed(tier_writer.stage(vectors), TIERED_EVENTS, good, tells_all=False)
    unharmed(vectors)
    hits = finished(
        vectors.search(
            "alice",
            Embedding(np.ones(DIMENSIONS, np.float32), np.zeros((0, 64), np.float16)),
            filter=SearchFilter(tiers=("short", "medium", "long", "archived")),
            limit=100,
            min_score=None,
        )
    )
    assert {hit.memory_id for hit in hits} == {"m1", "m2", "m3"}


@pytest.mark.parametrize("field", ["at", "published_at"])
@pytest.mark.parametrize(
    ("when", "dead"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("1970-01-01T00:30:00Z", 0),
        ("2026-03-16T09:26:54Z", 1),
        ("2300-01-01T00:00:00Z", 1),
        ("9999-12-31T23:59:59Z", 1),
    ],
)
def test_a_use_of_another_time_ends_nobody(field: str, when: str, dead: int) -> None:
    records = RecordsInMemory()
    finished(records.write([enriched(memory_id=name, version=5) for name in ("m1", "m2")]))
    used = LIVED.validate_python(GOLDEN["MemoryRecalled"] | {"memory_id": "m1", field: when})
    good = used.model_validate(GOLDEN["MemoryRecalled"] | {"memory_id": "m2"})
    with quiet_loop(0) as (loop, network):
        line = Line(loop, network, lifecycle.stage(records, Tiers()))
        line.feed([each.model_dump_json().encode() for each in (used, good)])
        assert len(line.dead()) == dead
    assert "m2" in {told.memory_id for _, told in finished(records.lives(None, 9))}


def unharmed(store: MemoryRecords | MemoryVectors) -> None:
    """Nobody's forgetting has reached a user whom it did not name."""
    assert finished(store.count("canary")) >= len(CANARIES)


@pytest.mark.parametrize(
    ("reader", "messages"),
    [
        (PUBLISHED_EVENTS, PUBLISHED),
        (CLASSIFIED_EVENTS, CLASSIFIED),
        (ENRICHED_EVENTS, ENRICHED),
        (STORED_NOTICES, NOTICES),
        (LIVED, LIVED_EVENTS),
        (TypeAdapter(MemoryTiered), TIERED_EVENTS),
    ],
    ids=["published", "classified", "enriched", "stored", "lived", "tiered"],
)
def test_some_inputs_are_used_and_most_are_not(
    reader: TypeAdapter[Any], messages: Sequence[Any]
) -> None:
    """A fuzzer whose inputs are all refused at the first look tests nothing behind it."""
    mutator = Mutator(Random(SEED), messages)
    used = sum(_is_read(reader, mutator.one()) for _ in range(1_000))
    assert 150 < used < 700


def _is_read(reader: TypeAdapter[Any], value: bytes) -> bool:
    try:
        reader.validate_json(value)
    except ValueError:
        return False
    return True
