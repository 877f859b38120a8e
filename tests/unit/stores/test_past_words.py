"""How rare the words of a question about the past are: what the index is asked for that."""

from collections.abc import Sequence
from uuid import UUID

from pipeline.domain.lexical import lexical_vector, question_terms
from pipeline.ports import Embedding, Past, PastState, Question
from pipeline.stores.conditions import Every
from pipeline.stores.index import VectorIndex
from pipeline.stores.past import MOST_WEIGHED, rarity_in
from pipeline.stores.points import Found, IndexShape, Nearest
from pipeline.stores.points_in_memory import PointsInMemory
from schemas.events import MemoryClassified, SparseVector
from schemas.search import SearchFilter
from tests.builders import DIMENSIONS, MODEL, direction, enriched, question

TEXT = " ".join(f"word{number}" for number in range(1_000))


class Counting(PointsInMemory):
    most = 0

    async def ask(self, requests: Sequence[Nearest], where: Every) -> Sequence[Sequence[Found]]:
        self.most = max(self.most, len(requests))
        return await super().ask(requests, where)


async def test_a_long_question_about_the_past_asks_for_no_more_than_a_bounded_number_of_words() -> (
    None
):
    points = Counting()
    index = VectorIndex(points, IndexShape(MODEL, DIMENSIONS))
    is_there = enriched(TEXT, memory_id="a", version=1, topics=(), topic_rows=())
    was = enriched(TEXT, memory_id="b", version=2, topics=(), topic_rows=())
    await index.write(
        [each.model_copy(update={"lexical_vector": lexical_vector(each)}) for each in (is_there,)]
    )
    names = MemoryClassified.model_fields.keys() - {"type"}
    state = MemoryClassified(**{name: getattr(was, name) for name in names})
    own = Embedding(direction(TEXT), question().tokens)
    asks = Question(own, question_terms(TEXT), None)
    past = Past(4, [PastState(state, own, 6, None)])
    found = await index.candidates(
        "alice", asks, filter=SearchFilter(), mode="hybrid", depth=9, past=past
    )
    assert {each.memory["memory_id"]: each.signals["lexical"] for each in found} == {
        "a": 1.0,
        "b": 1.0,
    }
    assert points.most <= MOST_WEIGHED + 2


def test_words_that_were_not_asked_for_count_as_most_do() -> None:
    terms = range(MOST_WEIGHED + 2)
    told = [_scoring(term, 3.0 if term else 9.0) for term in terms][:MOST_WEIGHED]
    rarity = rarity_in(terms, told)
    assert (rarity[0], rarity[1], rarity[MOST_WEIGHED], rarity[MOST_WEIGHED + 1]) == (9, 3, 3, 3)


def _scoring(term: int, score: float) -> Sequence[Found]:
    return [Found(UUID(int=term), {}, score, SparseVector(indices=(term,), values=(1.0,)))]
