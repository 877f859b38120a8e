"""Questions about what was believed at a moment, from the desk on: what changed since, what was forgotten."""

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from consumers import query
from pipeline.aside import aside
from pipeline.domain.clock import version_at
from pipeline.domain.lexical import lexical_vector
from pipeline.domain.tiers import Tiers
from pipeline.domain.weights import Weights
from pipeline.errors import Refused
from pipeline.models.classifier import HeuristicClassifier
from pipeline.models.hashing import HashingEmbedder
from pipeline.ports import Classification, Embedding
from pipeline.searching import past
from pipeline.stores.records_in_memory import RecordsInMemory
from schemas.events import Enriched
from schemas.filters import Where
from schemas.search import (
    Asked,
    Hit,
    MemoryAnswered,
    MemoryAsked,
    RecordedMemory,
    ReplyTo,
    SearchAnswered,
    SearchAsked,
    SearchFilter,
)
from tests.builders import archived, caches, enriched, forgotten, user_forgotten, vectors_in_memory
from tests.unit.consumers.counting import CountingEmbedder

MAY = datetime(2026, 5, 1, tzinfo=UTC)
EMBEDDER = HashingEmbedder()


def day(number: int) -> datetime:
    """A day of May; tells are made at noon, questions ask about midnight."""
    return MAY + timedelta(days=number - 1)


def at_noon(number: int) -> int:
    return version_at(day(number) + timedelta(hours=12))


class CountingClassifier(HeuristicClassifier):
    """Remembers what it was asked for, and may be slow."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.takes_s = 0.0
        self.began = threading.Event()

    def classify(self, texts: Sequence[str]) -> Sequence[Classification]:
        self.began.set()
        time.sleep(self.takes_s)
        self.texts += texts
        return super().classify(texts)


class Stores:
    """Both stores, and the desk that asks them."""

    def __init__(self, weights: Weights | None = None, **more: Any) -> None:
        self.records = RecordsInMemory()
        self.vectors = vectors_in_memory(EMBEDDER.model, EMBEDDER.dimensions)
        self.embedder = CountingEmbedder()
        self.classifier = CountingClassifier()
        self.desk = query.stage(
            self.embedder,
            self.classifier,
            self.records,
            self.vectors,
            weights or Weights(),
            **more,
        )

    async def write(self, *events: Enriched) -> None:
        await self.records.write(events)
        await self.vectors.write(events)

    async def said(self, number: int, memory_id: str, text: str, **fields: Any) -> None:
        (own,) = await EMBEDDER.embed([text])
        made = enriched(
            text,
            memory_id=memory_id,
            version=at_noon(number),
            model=EMBEDDER.model,
            vector=own.text,
            tokens=own.tokens,
            topic_rows=np.zeros((0, EMBEDDER.dimensions)),
            **{"occurred_at": MAY} | fields,
        )
        await self.write(made.model_copy(update={"lexical_vector": lexical_vector(made)}))

    async def search(
        self, text: str, as_of: datetime | None, user: str = "alice", **fields: Any
    ) -> Sequence[Hit]:
        question = SearchAsked(**_envelope(user), text=text, as_of=as_of, **fields)
        answered = await self.desk.answer(question)
        assert isinstance(answered, SearchAnswered)
        self.told = self.desk.following(question, answered)
        return answered.hits

    async def texts(self, as_of: datetime | None, user: str = "alice", **fields: Any) -> set[str]:
        return {
            hit.text for hit in await self.search("Where does Ana live?", as_of, user, **fields)
        }

    async def get(
        self, memory_id: str, as_of: datetime, user: str = "alice"
    ) -> RecordedMemory | None:
        asked: Asked = MemoryAsked(**_envelope(user), memory_id=memory_id, as_of=as_of)
        answered = await self.desk.answer(asked)
        assert isinstance(answered, MemoryAnswered)
        return answered.memory


def _envelope(user: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "question_id": uuid4(),
        "asked_at": now,
        "deadline": now + timedelta(seconds=10),
        "reply_to": ReplyTo(topic="answers", partition=0),
        "user_id": user,
    }


async def moved(**more: Any) -> Stores:
    """Ana moved from Rome to Oslo on the 10th; a dog came on the 15th."""
    stores = Stores(**more)
    await stores.said(2, "home", "Ana lives in Rome", speaker="Ana")
    await stores.said(3, "job", "Ana works at a museum")
    await stores.said(10, "home", "Ana lives in Oslo", speaker="Ana")
    await stores.said(15, "dog", "Ana has a dog")
    return stores


ROME, OSLO, JOB, DOG = (
    "Ana lives in Rome",
    "Ana lives in Oslo",
    "Ana works at a museum",
    "Ana has a dog",
)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
async def test_each_moment_has_its_own_answer(mode: str) -> None:
    stores = await moved()
    believed = [(2, set[str]()), (3, {ROME}), (10, {ROME, JOB}), (11, {OSLO, JOB})]
    for number, texts in believed:
        assert await stores.texts(day(number), mode=mode) == texts
    assert await stores.texts(day(16), mode=mode) == await stores.texts(None, mode=mode)


async def test_a_moment_to_come_is_today() -> None:
    stores = await moved()
    question = "Where does Ana live?"
    today = await stores.search(question, None)
    assert await stores.search(question, datetime(9999, 12, 31, tzinfo=UTC)) == today
    assert await stores.search(question, datetime(1, 1, 1, tzinfo=UTC)) == ()
    assert await stores.texts(MAY, user="nobody") == set()


async def test_the_state_of_then_is_told_whole_and_ranked_among_the_others() -> None:
    stores = await moved()
    best, *_ = await stores.search("Where does Ana live?", day(10), explain=True)
    assert (best.memory_id, best.text, best.speaker) == ("home", ROME, "Ana")
    assert best.version == at_noon(2)
    assert "lexical" in best.signals


async def test_a_filter_is_asked_of_the_state_of_then() -> None:
    stores = await moved()
    assert await stores.texts(day(10), filter=SearchFilter(speaker="Ana")) == {ROME}
    await stores.said(20, "home", "Bo lives in Oslo", speaker="Bo")
    assert await stores.texts(day(12), filter=SearchFilter(speaker="Bo")) == set()
    assert await stores.texts(day(12), filter=SearchFilter(speaker="Ana")) == {OSLO}


async def test_what_was_forgotten_since_is_in_no_past() -> None:
    stores = await moved()
    await stores.write(forgotten("home", version=at_noon(20)))
    await stores.said(22, "home", "Ana lives in Bonn")
    for number in range(1, 22):
        assert await stores.texts(day(number)) <= {JOB, DOG}
        assert await stores.get("home", day(number)) is None
    await stores.write(user_forgotten(version=at_noon(25)))
    for number in range(1, 30):
        assert await stores.texts(day(number)) == set()


@pytest.mark.parametrize("late", ["record", "index"])
async def test_one_store_that_has_heard_of_a_forgetting_is_enough(late: str) -> None:
    """Of the state that was changed since; what has not changed is in the index alone."""
    stores = await moved()
    heard = stores.vectors if late == "record" else stores.records
    await heard.write([forgotten("home", version=at_noon(20))])
    assert await stores.texts(day(10)) == {JOB}
    await heard.write([user_forgotten(version=at_noon(21))])
    assert ROME not in await stores.texts(day(10))


async def test_what_is_forgotten_while_the_question_is_under_way_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = await moved()
    embed = stores.embedder.embed

    async def meanwhile(texts: Sequence[str]) -> Sequence[Embedding]:
        if any(ROME in text for text in texts):
            await stores.write(forgotten("home", version=at_noon(20)))
            await stores.said(22, "home", "Ana lives in Bonn")
        return await embed(texts)

    monkeypatch.setattr(stores.embedder, "embed", meanwhile)
    assert await stores.texts(day(10)) == {JOB}


async def test_nobody_sees_anothers_past() -> None:
    stores = await moved()
    await stores.said(2, "home", "Bob lives in Rome", user_id="bob")
    await stores.said(10, "home", "Bob lives in Oslo", user_id="bob")
    assert await stores.texts(day(10), user="bob") == {"Bob lives in Rome"}
    assert await stores.texts(day(10)) == {ROME, JOB}
    assert await stores.get("dog", day(20), user="bob") is None


async def test_what_is_put_away_today_is_not_found_in_the_past_unless_asked_for() -> None:
    stores = await moved()
    for memory_id in ("home", "job"):
        (told,) = await stores.records.live([archived(memory_id, version=at_noon(20))], Tiers())
        assert told is not None
        await stores.vectors.tier([told])
    assert await stores.texts(day(10)) == set()
    away = SearchFilter(tiers=("archived",))
    found = await stores.search("Where does Ana live?", day(10), filter=away)
    assert {(hit.text, hit.tier) for hit in found} == {(ROME, "archived"), (JOB, "archived")}
    then = await stores.get("home", day(10))
    assert then is not None
    assert (then.text, then.tier) == (ROME, "archived")


async def test_a_memory_is_told_as_it_was_then() -> None:
    stores = await moved()
    texts = {number: await stores.get("home", day(number)) for number in (2, 5, 11)}
    assert [known.text if known else None for known in texts.values()] == [None, ROME, OSLO]
    assert await stores.get("never", day(5)) is None


async def test_an_answer_about_the_past_is_no_recall_and_is_not_kept() -> None:
    stores = await moved(caches=caches())
    assert ROME in await stores.texts(day(10))
    assert not stores.told
    await stores.write(forgotten("home", version=at_noon(20)))
    assert ROME not in await stores.texts(day(10))
    assert await stores.texts(None)
    assert stores.told


async def test_topics_count_for_the_state_of_then_too() -> None:
    stores = await moved(weights=Weights(topics=0.3))
    await stores.said(4, "test", "The unit tests of the parser fail with pytest")
    await stores.said(12, "test", "All is well")
    best, *_ = await stores.search("pytest unit tests", day(11), explain=True)
    assert best.signals["topics"] == pytest.approx(1.0)


# What it may cost


async def test_too_much_since_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = await moved()
    for name, most, why in (
        ("MOST_EMBEDDED", 0, "narrow the filter"),
        ("MOST_CHANGED", 0, "more than 0 memories of this user have changed since 2026-05-10"),
        ("MOST_WRITTEN", 1, "more than 1 memories of this user were written since 2026-05-10"),
        ("MOST_BYTES", 9, "more than 9 bytes of this user's memories have changed since 2026-05-"),
        ("MOST_EMBEDDED_CHARS", 9, "with 19 characters, and 9 are looked at: narrow the filter"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(past, name, most)
            with pytest.raises(Refused, match=f"as_of: .*{why}"):
                await stores.texts(day(10))
    assert await stores.texts(day(16)) == {OSLO, JOB, DOG}, "nothing has changed since"


async def test_only_what_fits_is_embedded_and_each_text_once() -> None:
    stores = await moved()
    await stores.texts(day(10), filter=SearchFilter(speaker="Bo"))
    assert stores.embedder.texts == ["Where does Ana live?"]
    await stores.said(2, "home too", ROME, speaker="Ana")
    await stores.said(10, "home too", OSLO, speaker="Ana")
    stores.embedder.texts.clear()
    assert len(await stores.search("Ana", day(10))) == 3
    assert sum(ROME in text for text in stores.embedder.texts) == 1


async def test_who_looks_for_words_alone_has_nothing_embedded() -> None:
    stores = await moved(weights=Weights(topics=0.3))
    assert await stores.texts(day(10), mode="lexical") == {ROME, JOB}
    assert await stores.texts(None, mode="lexical") == {OSLO, JOB, DOG}
    assert stores.embedder.texts == []


@pytest.mark.parametrize(
    ("narrowed", "read"),
    [
        (SearchFilter(speaker="Bo"), []),
        (SearchFilter(speaker="Bo", domain="coding"), []),
        (SearchFilter(where=Where.model_validate({"not": {"speaker": "Ana"}})), []),
        (SearchFilter(domain="coding"), [ROME]),
        (
            SearchFilter(speaker="Ana", where=Where.model_validate({"not": {"topics": "food"}})),
            [ROME],
        ),
    ],
)
async def test_the_classifier_reads_only_what_the_rest_of_a_filter_leaves(
    narrowed: SearchFilter, read: list[str]
) -> None:
    stores = await moved()
    await stores.texts(day(10), filter=narrowed)
    assert stores.classifier.texts == read


async def test_what_nobody_waits_for_any_more_is_not_read_on() -> None:
    stores = Stores()
    long = "We deployed the kubernetes cluster. " * 400
    for number in (2, 10):
        for place in range(20):
            await stores.said(number, f"m{place}", long)
    stores.classifier.takes_s = 0.02
    asking = asyncio.create_task(stores.texts(day(5), filter=SearchFilter(domain="business")))
    assert await asyncio.to_thread(stores.classifier.began.wait, 30)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await aside(lambda: None)
    read = len(stores.classifier.texts)
    await asyncio.sleep(0.1)
    assert len(stores.classifier.texts) == read < 20


async def test_a_question_that_reads_much_holds_up_nobody_else() -> None:
    """Neither the event loop nor the threads that everybody uses."""
    stores = Stores()
    for number in (2, 10):
        for place in range(20):
            await stores.said(number, f"m{place}", "Ana lives in Rome. " * 800)
    stores.classifier.takes_s = 0.02
    narrowed = SearchFilter(domain="coding")
    about_the_past = [asyncio.create_task(stores.texts(day(5), filter=narrowed)) for _ in range(40)]
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 1) == "done"
    assert not all(task.done() for task in about_the_past)
    for task in about_the_past:
        task.cancel()
    await asyncio.gather(*about_the_past, return_exceptions=True)
