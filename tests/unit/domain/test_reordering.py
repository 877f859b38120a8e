"""The same hits in another order."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import reordering
from pipeline.domain.lexical import lexical_terms
from pipeline.domain.reordering import MOST_COMPARED, Placed, alike, compared, placed, reranked
from schemas.search import Hit

_TEXTS = st.lists(st.sampled_from(["tea", "green tea", "black coffee", "coffee", "", "the"]))
_RANKINGS = st.lists(
    st.tuples(st.sampled_from(["tea", "green tea", "coffee", "of the"]), st.floats(-1, 1))
)


def hit(memory_id: str, text: str = "", score: float = 0.5) -> Hit:
    return Hit(
        memory_id=memory_id,
        text=text,
        occurred_at=datetime(2026, 3, 14, tzinfo=UTC),
        version=1,
        domain="other",
        score=score,
    )


def ranking(*texts: str) -> list[Placed]:
    return [Placed(hit(str(i), text), 1 - i / 100) for i, text in enumerate(texts)]


def diversified(ranking: list[Placed], diversity: float, *, limit: int) -> list[Placed]:
    return reordering.diversified(ranking, compared(ranking), diversity, limit=limit)


def ids(of: list[Placed]) -> list[str]:
    return [one.hit.memory_id for one in of]


def test_what_was_read_again_comes_in_its_order_and_the_rest_after_it() -> None:
    made = reranked(placed([hit(name) for name in "abcd"]), [-7, 9, 4], 1.0, explain=False)
    assert ids(made) == ["b", "c", "a", "d"]


def test_the_ranking_counts_beside_what_was_read_whatever_the_scale_of_that() -> None:
    before = placed([hit("a", score=0.9), hit("b", score=0.8), hit("c", score=0.1)])
    for scale in (0.001, 1, 1_000):
        given_ = [scale * logit for logit in (-4, -1, 3)]
        assert ids(reranked(before, given_, 0.0, explain=False)) == ["a", "b", "c"]
        assert ids(reranked(before, given_, 0.5, explain=False)) == ["b", "a", "c"]
        assert ids(reranked(before, given_, 1.0, explain=False)) == ["c", "b", "a"]


def test_equally_good_ones_stay_as_they_stood() -> None:
    stood = placed([hit(name) for name in "cab"])
    assert ids(reranked(stood, [0.5] * 3, 0.5, explain=False)) == list("cab")


def test_a_hit_keeps_its_score_and_tells_the_rerankers_where_it_is_explained() -> None:
    before = placed([hit("a", score=0.3), hit("b", score=0.2)])
    explained, far = reranked(before, [0.0, -900.0], 0.5, explain=True)
    plain, _ = reranked(before, [0.0, -900.0], 0.5, explain=False)
    assert (explained.hit.score, explained.hit.signals) == (0.3, {"rerank": 0.5})
    assert far.hit.signals == {"rerank": 0.0}
    assert (plain.hit.score, plain.hit.signals) == (0.3, {})


@given(st.lists(st.floats(-50, 50)), st.integers(0, 5), st.floats(0, 1))
def test_nothing_is_lost_and_nothing_unread_is_better_than_what_was_read(
    given_: list[float], unread: int, weight: float
) -> None:
    before = placed([hit(str(i)) for i in range(len(given_) + unread)])
    made = reranked(before, given_, weight, explain=False)
    assert sorted(ids(made)) == sorted(ids(list(before)))
    assert [one.worth for one in made] == sorted(
        (one.worth for one in made), reverse=True
    ) or not given_
    assert ids(made)[len(given_) :] == ids(list(before))[len(given_) :]


def test_the_second_of_two_that_say_the_same_makes_room() -> None:
    said = ranking("the train leaves at nine", "the train leaves at nine", "bring the tickets")
    assert ids(diversified(said, 0.5, limit=2)) == ["0", "2"]
    assert ids(diversified(said, 0.0, limit=2)) == ["0", "1"]


def test_a_far_better_hit_is_taken_though_it_is_alike() -> None:
    alike_ = [
        Placed(hit("a", "green tea"), 1.0),
        Placed(hit("b", "black green tea"), 0.9),
        Placed(hit("c", "coffee"), 0.0),
    ]
    assert ids(diversified(alike_, 0.3, limit=2)) == ["a", "b"]


@given(_RANKINGS, st.integers(0, 12))
def test_diversity_of_zero_changes_nothing(said: list[tuple[str, float]], limit: int) -> None:
    before = sorted_ranking(said)
    assert diversified(before, 0.0, limit=limit) == before[:limit]


@given(_RANKINGS, st.floats(0, 1), st.integers(0, 12))
def test_as_many_as_there_are_none_twice_the_best_first_and_always_the_same(
    said: list[tuple[str, float]], diversity: float, limit: int
) -> None:
    before = sorted_ranking(said)
    made = diversified(before, diversity, limit=limit)
    assert len(made) == min(limit, len(before))
    assert len(set(ids(made))) == len(made)
    assert set(ids(made)) <= set(ids(before))
    assert ids(made)[:1] == ids(before)[: min(limit, 1)]
    assert made == diversified(before, diversity, limit=limit)
    # Who asks for fewer is told the beginning of it.
    assert diversified(before, diversity, limit=limit + 3)[: len(made)] == made


@given(st.integers(1, 8), st.floats(0, 1))
def test_equal_ones_come_in_the_order_they_had(count: int, diversity: float) -> None:
    same = [Placed(hit(str(i), "tea"), 0.5) for i in range(count)]
    assert diversified(same, diversity, limit=count) == same


@given(_TEXTS)
def test_likeness_is_between_none_and_all_whichever_way_round(texts: list[str]) -> None:
    terms = [lexical_terms(text) for text in texts]
    for one in terms:
        assert alike(one, one) == 1
        assert all(0 <= alike(one, other) == alike(other, one) <= 1 for other in terms)


def sorted_ranking(said: list[tuple[str, float]]) -> list[Placed]:
    best_first = sorted(said, key=lambda one: -one[1])
    return [Placed(hit(str(i), text), worth) for i, (text, worth) in enumerate(best_first)]


def test_of_very_many_words_a_bounded_part_is_compared() -> None:
    words = [f"word{number}" for number in range(4 * MOST_COMPARED)]
    half = len(words) // 2
    same, turned, other = compared(
        ranking(" ".join(words[:half]), " ".join(words[:half][::-1]), " ".join(words[half:]))
    )
    assert len(same) == MOST_COMPARED
    assert (alike(same, turned), alike(same, other)) == (1, 0)
