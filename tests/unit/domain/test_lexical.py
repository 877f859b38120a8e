"""Memories and questions as weighted terms."""

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import lexical
from pipeline.domain.lexical import K1, STOP_WORDS, lexical_vector, question_terms
from schemas.events import MemoryCaptured, Said, SparseVector
from schemas.text import MAX_TEXT_CHARS, storable

MONDAY = datetime(2023, 5, 8, 12, 0, tzinfo=UTC)


def memory(text: str, *preceding: str, speaker: str | None = None) -> MemoryCaptured:
    return MemoryCaptured(
        event_id=UUID(int=1),
        user_id="alice",
        memory_id="m1",
        version=1,
        published_at=MONDAY,
        occurred_at=MONDAY,
        text=text,
        speaker=speaker,
        preceding=tuple(Said(text=said) for said in preceding),
    )


def weights(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


def score(question: str, told: MemoryCaptured) -> float:
    """The dot product, as the index computes it where all terms are equally rare."""
    of = weights(lexical_vector(told))
    return sum(of.get(index, 0.0) for index in question_terms(question).indices)


def term(word: str) -> int:
    (index,) = question_terms(word).indices
    return index


def is_storable(text: str) -> bool:
    try:
        return bool(storable(text).strip())
    except ValueError:
        return False


ANY_TEXT = st.text(max_size=200).filter(is_storable)
WORDS = st.lists(
    st.sampled_from(["lake", "boat", "Ana's", "15th", "été", "東京へ", "ไปทะเล", "7", "naïve-ish"])
)


# What is matched


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("swimming", "She swims every day"),
        ("CAROLINE", "Caroline's boat"),
        ("caroline’s boats", "Caroline has a boat"),
        ("on the 15th", "January 15"),
        ("ﬁsh", "fish"),
        ("straße", "STRASSE"),
        ("école", "l'école est fermée"),
        ("Brien", "Mr O’Brien called"),
        ("हिन्दी", "मैं हिन्दी बोलता हूँ"),
        ("東京", "来週東京へ行く"),
        ("ラーメン", "豚骨ラーメンが好き"),
        ("학교", "내일 학교에 간다"),
        ("ทะเล", "ฉันชอบไปทะเล"),
        ("猫", "猫!"),
        ("ＡＢＣ", "abc"),
        ("user_id", "the user id"),
        ("k8s", "moved to k8s"),
    ],
)
def test_a_question_matches_the_word_it_means(question: str, text: str):
    assert score(question, memory(text)) > 0


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("car", "a careful cartoon"),
        ("हिम", "हिन्दी"),
        ("京東", "東京"),
        ("art", "the party started"),
    ],
)
def test_a_part_of_a_word_does_not_match(question: str, text: str):
    assert score(question, memory(text)) == 0


def test_speaker_and_day_are_matched_in_words():
    told = memory("I went to the lake.", speaker="Caroline")
    for word in ("Caroline", "Monday", "8", "May", "2023"):
        assert score(word, told) > 0, word


def test_who_spoke_before_is_not_matched():
    said = Said(text="the lake", speaker="Caroline", occurred_at=MONDAY.replace(month=7))
    told = memory("yes").model_copy(update={"preceding": (said,)})
    assert score("Caroline in July", told) == 0


def test_stop_words_say_nothing():
    assert question_terms("what did you do with it, and why don’t they?") == SparseVector()
    assert "may" not in STOP_WORDS, "a month"


def test_a_question_weighs_each_distinct_term_once():
    assert question_terms("boat, boats & BOAT").values == (1.0,)


# How much it weighs


def test_a_weight_is_bm25s_without_the_idf():
    # 8, May, 2023, Monday, lake, lake, boat: seven terms where forty are usual.
    of = weights(lexical_vector(memory("lake lake boat")))
    room = 1.5 * (1 - 0.75 + 0.75 * 7 / 40)
    assert of[term("boat")] == pytest.approx(1 * 2.5 / (1 + room))
    assert of[term("lake")] == pytest.approx(2 * 2.5 / (2 + room))


def test_what_was_said_before_counts_by_its_nearness():
    of = weights(lexical_vector(memory("yes", "the lake", "the boat")))
    length = 5 + 0.5 + 0.25
    room = 1.5 * (1 - 0.75 + 0.75 * length / 40)
    assert of[term("boat")] == pytest.approx(0.5 * 2.5 / (0.5 + room))
    assert of[term("lake")] == pytest.approx(0.25 * 2.5 / (0.25 + room))


def test_frequencies_are_mixed_before_they_saturate():
    said_thrice = memory("lake", "lake", "lake")
    said_once = memory("lake", "stone", "stone")
    gain = score("lake", said_thrice) / score("lake", said_once)
    assert 1 < gain < 1.75


def test_a_short_text_beats_a_long_one_with_the_same_word():
    assert score("lake", memory("the lake")) > score("lake", memory("the lake " + "stone " * 100))


def test_a_text_beats_the_one_that_only_follows_it():
    assert score("lake", memory("the lake", "hello")) > score("lake", memory("hello", "the lake"))


# What always holds


@given(text=ANY_TEXT, preceding=st.lists(ANY_TEXT, max_size=2))
def test_any_text_becomes_a_vector_that_an_index_takes(text: str, preceding: list[str]):
    for vector in (lexical_vector(memory(text, *preceding)), question_terms(text)):
        assert list(vector.indices) == sorted(set(vector.indices))
        assert all(0 <= index < 2**32 for index in vector.indices)
        assert all(math.isfinite(value) and 0 < value < K1 + 1 for value in vector.values)


@given(words=WORDS, data=st.data())
def test_the_order_of_words_does_not_matter(words: list[str], data: st.DataObject):
    shuffled = data.draw(st.permutations(words))
    text, other = " ".join(["so", *words]), " ".join(["so", *shuffled])
    assert question_terms(text) == question_terms(other)
    assert weights(lexical_vector(memory(text))) == pytest.approx(
        weights(lexical_vector(memory(other)))
    )


@given(st.lists(st.sampled_from(sorted(STOP_WORDS)), max_size=20), st.sampled_from(" ,.!?\n—"))
def test_stop_words_alone_are_no_terms(words: list[str], between: str):
    assert question_terms(between.join(words)) == SparseVector()


@given(text=ANY_TEXT)
def test_a_text_matches_itself(text: str):
    asked = question_terms(text)
    assert set(asked.indices) <= set(lexical_vector(memory(text)).indices)


@pytest.mark.parametrize(
    "piece", ["a", "a ", "a'", "日本", "é", "\u0301", "\ufdfa", "🙂", "1", "ก"]
)
def test_the_longest_text_is_taken(piece: str):
    text = (piece * MAX_TEXT_CHARS)[:MAX_TEXT_CHARS]
    assert lexical_vector(memory("lake " + text[5:])).indices


def test_threads_stem_alike():
    texts = [f"boats swimming{i} running quickly holidays{i}" for i in range(500)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(question_terms, texts)) == [question_terms(text) for text in texts]


@pytest.mark.parametrize("unseen", ["\u00ad", "\u2060", "\ufeff", "\u200d"])
def test_what_nobody_sees_within_a_word_does_not_part_it(unseen: str):
    assert question_terms(f"pass{unseen}word") == question_terms("password")


def test_a_word_as_long_as_a_text_is_not_kept():
    kept = lexical._kept_terms_of  # pyright: ignore[reportPrivateUsage]
    kept.cache_clear()
    question_terms("x" * MAX_TEXT_CHARS)
    assert kept.cache_info().currsize == 0
