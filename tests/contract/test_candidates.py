"""What may answer a question, and what each signal gives: the same from every engine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from pipeline.domain.periods import Period
from pipeline.domain.ranking import Candidate
from pipeline.domain.times import periods
from pipeline.errors import Refused
from pipeline.ports import Embedding, MemoryVectors, Question
from schemas.events import SparseVector
from schemas.search import Mode, SearchFilter
from tests.builders import DIMENSIONS, direction, enriched, forgotten

DAY = timedelta(days=1)
AXES = np.eye(DIMENSIONS)
TOKENS = np.eye(64, dtype=np.float16)


def asked(*terms: int, tokens: Sequence[int] = (), vector: Any = AXES[0]) -> Question:
    embedding = Embedding(np.asarray(vector, np.float32), TOKENS[list(tokens)])
    return Question(embedding, SparseVector(indices=terms, values=tuple(1.0 for _ in terms)))


def memory(memory_id: str, terms: Mapping[int, float], **fields: Any) -> Any:
    words = SparseVector(indices=tuple(terms), values=tuple(terms.values()))
    return enriched(memory_id=memory_id, lexical_vector=words, **fields)


async def found(
    vectors: MemoryVectors,
    question: Question,
    *,
    user: str = "alice",
    mode: Mode = "hybrid",
    depth: int = 10,
    filter: SearchFilter | None = None,
) -> Mapping[str, Mapping[Any, float]]:
    told: Sequence[Candidate] = await vectors.candidates(
        user, question, filter=filter or SearchFilter(), mode=mode, depth=depth
    )
    return {each.memory["memory_id"]: each.signals for each in told}


async def test_meaning_words_and_tokens_each_say_their_part(vectors: MemoryVectors) -> None:
    await vectors.write(
        [
            memory("both", {1: 2.0, 2: 1.0}, vector=AXES[0], tokens=TOKENS[[0, 1]]),
            memory("words", {1: 1.0}, vector=AXES[1], tokens=TOKENS[[0]]),
            memory("neither", {9: 1.0}, vector=AXES[1], tokens=TOKENS[[5]]),
        ]
    )
    told = await found(vectors, asked(1, 2, tokens=(0, 1)))
    # "1" is in two of three, "2" in one: IDF as BM25 has it.
    often, seldom = np.log(1 + 1.5 / 2.5), np.log(1 + 2.5 / 1.5)
    half = often / (2 * often + seldom)
    assert told["both"] == pytest.approx({"dense": 1, "lexical": 1, "tokens": 1}, abs=1e-3)
    assert told["words"] == pytest.approx({"dense": 0, "lexical": half, "tokens": 0.5}, abs=1e-3)
    assert told["neither"] == pytest.approx({"dense": 0, "tokens": 0}, abs=1e-3)


@pytest.mark.parametrize(("mode", "signals"), [("dense", {"dense"}), ("lexical", {"lexical"})])
async def test_a_mode_asks_for_its_signal_alone(
    vectors: MemoryVectors, mode: Mode, signals: set[str]
) -> None:
    await vectors.write([memory("m", {1: 1.0}, vector=AXES[0], tokens=TOKENS[[0]])])
    told = await found(vectors, asked(1, tokens=(0,)), mode=mode)
    assert {name: set(given) for name, given in told.items()} == {"m": signals}


async def test_what_words_alone_have_found_is_less_close_than_the_rest(
    vectors: MemoryVectors,
) -> None:
    near = [memory(f"near {n}", {9: 1.0}, vector=AXES[0] + n * AXES[1]) for n in range(3)]
    await vectors.write([*near, memory("far", {1: 1.0}, vector=-AXES[0])])
    told = await found(vectors, asked(1), depth=2)
    assert set(told) == {"near 0", "near 1", "far"}
    assert told["far"]["dense"] == told["near 1"]["dense"]


async def test_topics_place_what_meaning_and_words_have_found(vectors: MemoryVectors) -> None:
    await vectors.write(
        [
            memory("one of two", {1: 1.0}, vector=AXES[0], topic_rows=AXES[[1, 2]]),
            memory("both", {}, vector=AXES[0], topic_rows=AXES[[3, 1]]),
            memory("none", {}, vector=AXES[0], topic_rows=np.zeros((0, DIMENSIONS))),
        ]
    )
    question = replace(asked(1), topics=AXES[[1, 3]].astype(np.float32))
    told = await found(vectors, question)
    assert told["one of two"]["topics"] == pytest.approx(0.5, abs=1e-3)
    assert told["both"]["topics"] == pytest.approx(1, abs=1e-3)
    assert "topics" not in told["none"]
    assert "topics" not in (await found(vectors, question, mode="lexical"))["one of two"]


async def test_a_memory_without_tokens_is_found_all_the_same(vectors: MemoryVectors) -> None:
    await vectors.write([memory("m", {}, vector=AXES[0], tokens=np.zeros((0, 64)))])
    assert set(await found(vectors, asked(1, tokens=(0,)))) == {"m"}


async def test_a_question_of_stop_words_is_asked_by_its_meaning(vectors: MemoryVectors) -> None:
    await vectors.write([memory("m", {1: 1.0}, vector=AXES[0])])
    assert set((await found(vectors, asked()))["m"]) == {"dense"}
    assert await found(vectors, asked(), mode="lexical") == {}


async def test_nobody_elses_memory_is_a_candidate_by_any_signal(vectors: MemoryVectors) -> None:
    same: dict[str, Any] = {"vector": AXES[0], "tokens": TOKENS[[0]]}
    await vectors.write(
        [memory("mine", {1: 1.0}, **same), memory("theirs", {1: 1.0}, user_id="bob", **same)]
    )
    for mode in ("hybrid", "dense", "lexical"):
        assert set(await found(vectors, asked(1, tokens=(0,)), mode=mode)) == {"mine"}
    assert await found(vectors, asked(1, tokens=(0,)), user="carol") == {}
    with pytest.raises(Refused):
        await found(vectors, asked(1), user=" ")


async def test_what_was_forgotten_or_filtered_out_is_no_candidate(vectors: MemoryVectors) -> None:
    same: dict[str, Any] = {"vector": AXES[0], "tokens": TOKENS[[0]]}
    await vectors.write(
        [
            memory("kept", {1: 1.0}, speaker="bob", **same),
            memory("other", {1: 1.0}, speaker="eve", **same),
            memory("gone", {1: 1.0}, speaker="bob", **same),
        ]
    )
    await vectors.write([forgotten("gone")])
    question = asked(1, tokens=(0,))
    assert set(await found(vectors, question, filter=SearchFilter(speaker="bob"))) == {"kept"}


async def test_of_many_the_closest_are_candidates(vectors: MemoryVectors) -> None:
    await vectors.write(
        [memory(f"m{n}", {1: 1.0 + n}, vector=direction(f"m{n}")) for n in range(60)]
    )
    told = await found(vectors, asked(1, vector=direction("m7")), depth=5)
    assert 5 <= len(told) <= 10
    assert told["m7"]["dense"] == pytest.approx(1, abs=1e-4)
    assert told["m59"]["lexical"] == 1


async def test_every_token_of_a_long_question_counts(vectors: MemoryVectors) -> None:
    asks = asked(1, tokens=range(64))
    await vectors.write(
        [
            memory("all", {1: 1.0}, tokens=TOKENS),
            memory("half", {1: 1.0}, tokens=TOKENS[::2]),
            memory("last", {1: 1.0}, tokens=TOKENS[-1:]),
            memory("none", {1: 1.0}, tokens=TOKENS[:0]),
        ]
    )
    told = await found(vectors, asks)
    given = {name: signals.get("tokens") for name, signals in told.items()}
    assert given == {"all": 1.0, "half": 0.5, "last": 0.015625, "none": None}


MAY = datetime(2026, 5, 1, tzinfo=UTC)
IN_MAY = Period(MAY.replace(tzinfo=None), (MAY + 31 * DAY).replace(tzinfo=None))


async def test_what_happened_when_the_question_says_is_a_candidate_however_far_away(
    vectors: MemoryVectors,
) -> None:
    often = {1: 2.0, 2: 2.0}
    near = [
        memory(f"near {n}", often, vector=AXES[0] + n * AXES[1], occurred_at=MAY - DAY)
        for n in range(20)
    ]
    then = [
        memory("then", {3: 1.0}, vector=AXES[2], tokens=TOKENS[[0]], occurred_at=MAY),
        memory("said then", {1: 1.0}, vector=AXES[3], occurred_at=MAY + DAY),
        memory("after", {3: 1.0}, vector=AXES[2], occurred_at=MAY + 31 * DAY),
        memory("theirs", {1: 1.0}, vector=AXES[2], occurred_at=MAY, user_id="bob"),
    ]
    await vectors.write([*near, *then])
    question = asked(1, 2, tokens=(0,))
    assert not {"then", "said then"} & set(await found(vectors, question, depth=5))

    told = await found(vectors, replace(question, periods=(IN_MAY,)), depth=5)
    assert set(told) - {each.memory_id for each in near} == {"then", "said then"}
    assert told["then"]["tokens"] == pytest.approx(1, abs=1e-3)
    assert told["then"]["dense"] == told["near 4"]["dense"], "no less than what words have found"
    assert 0 < told["said then"]["lexical"] < 1

    by_words = await found(vectors, replace(question, periods=(IN_MAY,)), mode="lexical", depth=5)
    assert set(by_words) & {"then", "said then"} == {"said then"}


async def test_a_month_of_no_year_is_looked_for_in_each(vectors: MemoryVectors) -> None:
    near = [memory(f"near {n}", {}, vector=AXES[0], occurred_at=MAY - DAY) for n in range(20)]
    ago = [
        memory(f"{years}", {}, vector=AXES[1], occurred_at=MAY.replace(year=2026 - years))
        for years in (0, 3, 8)
    ]
    await vectors.write([*near, *ago])
    question = replace(asked(), periods=(replace(IN_MAY, every_year=True),))
    assert {"0", "3", "8"} < set(await found(vectors, question, depth=5))


@pytest.mark.parametrize("year", [1, 2, 9998, 9999])
async def test_the_calendar_has_an_end_on_both_sides(vectors: MemoryVectors, year: int) -> None:
    near = [memory(f"near {n}", {}, vector=AXES[0], occurred_at=MAY) for n in range(20)]
    far = memory("then", {}, vector=AXES[1], occurred_at=MAY.replace(year=year))
    await vectors.write([*near, far])
    since, until = IN_MAY.since.replace(year=year), IN_MAY.until.replace(year=year)
    then = Period(since, until, every_year=True)
    assert "then" in await found(vectors, replace(asked(), periods=(then,)), depth=5)


async def test_what_was_before_or_after_a_day_reaches_to_the_calendars_ends(
    vectors: MemoryVectors,
) -> None:
    near = [memory(f"near {n}", {}, vector=AXES[0], occurred_at=MAY) for n in range(20)]
    long_ago = memory("long ago", {}, vector=AXES[1], occurred_at=MAY.replace(year=1950))
    later = memory("later", {}, vector=AXES[1], occurred_at=MAY.replace(year=2036))
    await vectors.write([*near, long_ago, later])
    for text, there in (("before 1 May 2026", "long ago"), ("after 1 May 2026", "later")):
        question = replace(asked(), periods=periods(text, MAY))
        told = await found(vectors, question, depth=5)
        assert {"long ago", "later"} & set(told) == {there}
