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

from consumers import classifier, embedder, record_writer, vector_writer
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.ports import Embedding, MemoryRecords, MemoryVectors
from pipeline.stage import Stage
from pipeline.stores.memory import CacheInMemory, RecordsInMemory, vectors_in_memory
from schemas.events import (
    CLASSIFIED as CLASSIFIED_EVENTS,
)
from schemas.events import ENRICHED as ENRICHED_EVENTS
from schemas.events import (
    PUBLISHED as PUBLISHED_EVENTS,
)
from schemas.events import MemoryCaptured, MemoryClassified, MemoryEnriched
from schemas.search import SearchFilter
from tests.builders import DIMENSIONS, MODEL, enriched, forgotten, user_forgotten
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


def feed(stage: Stage, messages: Sequence[Any], good: Any) -> None:
    """Each record comes out once or is set aside once, and the good ones come through."""
    written = good.model_dump_json(exclude_none=True).encode()
    for number, values in enumerate(inputs(messages, written)):
        with quiet_loop(number) as (loop, network):
            line = Line(loop, network, stage)
            line.feed(values)
            dead = [dict(letter.headers)["n"] for letter in line.dead()]
            assert len(line.made()) + len(dead) == len(line.taken()) >= len(values)
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


def unharmed(store: MemoryRecords | MemoryVectors) -> None:
    """Nobody's forgetting has reached a user whom it did not name."""
    assert finished(store.count("canary")) >= len(CANARIES)


@pytest.mark.parametrize(
    ("reader", "messages"),
    [(PUBLISHED_EVENTS, PUBLISHED), (CLASSIFIED_EVENTS, CLASSIFIED), (ENRICHED_EVENTS, ENRICHED)],
    ids=["published", "classified", "enriched"],
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
