"""What each stage makes of a batch, without Kafka: one event out for each event in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumers import classifier, embedder, query, record_writer
from consumers.embedder import joined, mixed, packed
from pipeline.domain.identity import content_hash
from pipeline.domain.wording import worded
from pipeline.errors import Refused
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.models.seen import unpacked
from pipeline.stores.cache_in_memory import CacheInMemory
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import (
    MemoryCaptured,
    MemoryClassified,
    MemoryEnriched,
    MemoryStored,
    Said,
    UserErased,
)
from schemas.topics import ENRICHED, EVENTS, Topic
from tests.builders import DIMENSIONS, MODEL, captured, enriched, forgotten, user_forgotten
from tests.unit.consumers.counting import CountingEmbedder


async def classified(**fields: Any) -> MemoryClassified:
    (event,) = await classifier.stage(HeuristicClassifier()).react([captured(**fields)])
    assert isinstance(event, MemoryClassified)
    return event


async def test_the_classifier_says_what_a_memory_is_about_and_lets_forgettings_pass() -> None:
    heard = captured(text="The unit tests of the parser fail")
    events = [heard, forgotten("m"), user_forgotten()]
    about, *rest = await classifier.stage(HeuristicClassifier()).react(events)
    assert isinstance(about, MemoryClassified)
    assert about.domain == "coding"
    assert (about.event_id, about.text) == (heard.event_id, heard.text)
    assert rest == events[1:]


async def test_the_embedder_gives_all_four_vectors() -> None:
    event = await classified(text="We deploy the database on Friday")
    (made,) = await embedder.stage(HashingEmbedder(), CacheInMemory()).react([event])
    assert isinstance(made, MemoryEnriched)
    assert made.text_vector.shape == (1, 384)
    assert made.token_vectors.shape[1] == 64
    assert made.topic_vectors.shape == (len(event.topics), 384)
    assert made.lexical_vector.indices
    assert made.becomes(MemoryEnriched, {}).text == event.text


async def test_what_was_said_before_is_not_encoded_twice() -> None:
    model, cache = CountingEmbedder(), CacheInMemory()
    stage = embedder.stage(model, cache)
    first = await classified(text="When is your exam?", run_id="chat", speaker="Ana")
    await stage.react([first])
    said = Said(text=first.text, speaker=first.speaker, occurred_at=first.occurred_at)
    second = await classified(text="On the second of June", run_id="chat", preceding=(said,))
    await stage.react([second])
    assert model.texts.count(worded(first)) == 1


async def test_a_cached_vector_of_another_width_is_not_used() -> None:
    class Garbage(CacheInMemory):
        async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
            return [b"junk" for _ in keys]

    said = Said(text="When is your exam?")
    event = await classified(text="On the second of June", preceding=(said,))
    (made,) = await embedder.stage(HashingEmbedder(), Garbage()).react([event])
    assert np.isfinite(np.frombuffer(made.text_vector.data, np.float32)).all()  # pyright: ignore


def test_the_nearest_text_before_weighs_more() -> None:
    own, near, far = np.eye(3, dtype=np.float32)
    vector = mixed(own, [[near, far]])
    assert vector == pytest.approx(np.array([1, 0.4, 0.2]) / np.linalg.norm([1, 0.4, 0.2]))
    assert mixed(own, [[], [near, far]]) == pytest.approx(vector)


def test_the_words_said_before_match_too_but_less() -> None:
    own, near, far = np.eye(64, dtype=np.float16)[:3, np.newaxis]
    lengths = np.linalg.norm(joined(own, [[near], [near, far]]).astype(np.float32), axis=1)
    assert lengths == pytest.approx([1, 0.85, 0.85, 0.7], abs=1e-3)
    long = np.repeat(near, 1_000, axis=0)
    assert len(joined(own, [[long]])) == 1 + embedder.MOST_TOKENS_BESIDE


def test_what_the_cache_keeps_is_read_back() -> None:
    text, tokens = np.arange(3, dtype=np.float32), np.eye(64, dtype=np.float16)[:2]
    known = unpacked(text.tobytes() + tokens.tobytes(), 3)
    assert known is not None
    assert (known.text.tolist(), known.tokens.tolist()) == (text.tolist(), tokens.tolist())
    assert unpacked(b"1234", 3) is None


def test_a_matrix_travels_as_little_endian_bytes() -> None:
    vectors = packed(np.array([[1.0, 2.0]], np.float16))
    assert (vectors.dtype, vectors.shape, vectors.data) == ("float16", (1, 2), b"\x00\x3c\x00\x40")


async def test_a_writer_tells_what_became_of_each_event() -> None:
    old, new = enriched(memory_id="m", version=1), enriched(memory_id="m", version=2)
    forgetting = user_forgotten(version=3)
    told = await record_writer.stage(RecordsInMemory()).react([new, old, forgetting])
    assert [type(each) for each in told] == [MemoryStored, MemoryStored, UserErased]
    assert [each.outcome for each in told[:2]] == ["stored", "superseded"]  # pyright: ignore
    assert {each.store for each in told} == {"record"}  # pyright: ignore


# What the record writer says behind what forgetting has outlived


async def said_behind(records: RecordsInMemory, *batch: Any) -> list[tuple[Topic, Any]]:
    """What follows in which topic, once the batch is written."""
    writer = record_writer.stage(records)
    done = list(zip(batch, await writer.react(batch), strict=True))
    return [(each.topic, each.message) async for page in writer.follow(done) for each in page]


async def test_each_memory_that_went_with_its_user_is_forgotten_in_the_log() -> None:
    records = RecordsInMemory()
    kept = enriched(memory_id="kept", user_id="bob")
    gone = [enriched(memory_id=f"m{n:04}", version=n + 1) for n in range(2_500)]
    assert await said_behind(records, *gone, kept) == []
    forgetting = user_forgotten(version=2_500)
    told = await said_behind(records, forgetting)
    assert {topic for topic, _ in told} == {ENRICHED}
    events = [event for _, event in told]
    assert [event.memory_id for event in events] == [each.memory_id for each in gone]
    assert {event.version for event in events} == {2_500}
    assert len({event.event_id for event in events} | {forgetting.event_id}) == 2_501
    assert await said_behind(records, forgetting) == told
    assert await said_behind(records, *events) == []
    trail = await records.history("alice", "m0000")
    assert [entry.change for entry in trail] == ["captured", "forgotten"]


async def test_one_copy_of_a_users_forgetting_tells_of_the_memories() -> None:
    records = RecordsInMemory()
    await records.write([enriched(memory_id="m", version=1)])
    copies = [user_forgotten(version=5, partition=n, partitions=3) for n in range(3)]
    assert await said_behind(records, copies[2], copies[1]) == []
    ((_, told),) = await said_behind(records, copies[0])
    assert told.memory_id == "m"


async def test_what_comes_after_its_forgetting_is_forgotten_once_more_in_the_log() -> None:
    records = RecordsInMemory()
    late = enriched(memory_id="m", version=1)
    forgetting = forgotten("m", version=2)
    assert await said_behind(records, forgetting, late) == [(ENRICHED, forgetting)]
    assert await said_behind(records, forgetting) == []
    assert await said_behind(records, late, forgetting) == []


async def test_what_comes_after_its_user_was_forgotten_is_too() -> None:
    records = RecordsInMemory()
    await said_behind(records, user_forgotten(version=5))
    ((topic, told),) = await said_behind(records, enriched(memory_id="m", version=4))
    assert (topic, told.memory_id, told.version) == (ENRICHED, "m", 5)
    assert await said_behind(records, enriched(memory_id="m", version=6)) == []


@pytest.mark.parametrize("late", [forgotten("m", version=2), enriched(memory_id="m", version=2)])
async def test_what_outlives_a_forgetting_that_came_last_goes_through_the_stream_again(
    late: Any,
) -> None:
    records = RecordsInMemory()
    newest = enriched("newest", memory_id="m", version=9, speaker="bob")
    await records.write([user_forgotten(version=5)])
    assert await said_behind(records, newest) == []
    ((topic, again),) = await said_behind(records, late)
    assert topic is EVENTS
    assert isinstance(again, MemoryCaptured)
    assert (again.event_id, again.version) == (newest.event_id, 9)
    assert content_hash(again) == content_hash(newest)
    assert await said_behind(records, newest) == []


async def test_a_state_that_is_only_older_makes_nothing() -> None:
    records = RecordsInMemory()
    await records.write([enriched(memory_id="m", version=9)])
    assert await said_behind(records, enriched(memory_id="m", version=8)) == []
    first, again = (enriched("once", memory_id="i", version=n, if_absent=True) for n in (1, 2))
    assert await said_behind(records, first, again) == []


def test_every_port_that_a_stage_names_is_one_that_there_is() -> None:
    from pipeline.app import Addresses, stage_modules
    from pipeline.app.ports import openers
    from pipeline.app.stages import ports_of
    from pipeline.kafka.connection import KafkaConnection
    from pipeline.settings import Settings

    where = Addresses(KafkaConnection("nowhere:1"), None, None, None, None)
    there = openers(Settings(), where, lambda _: None)
    assert {port for module in stage_modules().values() for port in ports_of(module)} <= set(there)
    assert query.stage.__doc__


async def test_who_embeds_nothing_has_an_index_without_loading_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.app import Addresses, open_ports
    from pipeline.kafka.connection import KafkaConnection
    from pipeline.settings import Settings

    async def loads(*_: object, **__: object) -> HashingEmbedder:
        raise AssertionError("nobody embeds here")

    async def described(*_: object, **__: object) -> tuple[str, int]:
        return MODEL, DIMENSIONS

    monkeypatch.setattr("pipeline.models.embedder.open_embedder", loads)
    monkeypatch.setattr("pipeline.models.embedder.described", described)
    where = Addresses(KafkaConnection("nowhere:1"), None, None, None, tmp_path)
    async with open_ports(Settings(), where, ["vectors"]) as ports:
        assert await ports["vectors"].write([enriched()]) == ["stored"]


async def test_who_may_not_have_the_index_hears_it_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.app import Addresses, open_ports
    from pipeline.kafka.connection import KafkaConnection
    from pipeline.settings import Settings
    from pipeline.stores.edge_files import owned

    async def load(*_: object, **__: object) -> HashingEmbedder:
        loaded.append(model := HashingEmbedder())
        return model

    loaded: list[HashingEmbedder] = []
    monkeypatch.setattr("pipeline.models.embedder.open_embedder", load)
    where = Addresses(KafkaConnection("nowhere:1"), None, None, None, tmp_path)
    with owned(tmp_path), pytest.raises(Refused, match="already has an owner"):
        async with open_ports(Settings(), where, ["embedder", "vectors"]):
            pass
    assert not loaded
    async with open_ports(Settings(), where, ["embedder", "vectors"]) as ports:
        assert await ports["vectors"].count() == 0
        with pytest.raises(Refused, match="already has an owner"):
            owned(tmp_path)
    owned(tmp_path).close()
