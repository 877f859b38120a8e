"""A question in, what the index finds out: the closest by meaning, and all that may answer it.

One request to the engine. Where the question names a time, those of that time are found by themselves too:
among a hundred thousand memories what happened last week need not be near to "what happened last week".
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np

from pipeline.domain.ranking import Candidate
from pipeline.ports import Embedding, Floats, Past, Question
from pipeline.stores.conditions import Every
from pipeline.stores.fitting import fitting_question
from pipeline.stores.found import Way, alike, candidates, closest_of, hit
from pipeline.stores.generations import Generations
from pipeline.stores.hot import HotVectors
from pipeline.stores.narrowing import happened_in
from pipeline.stores.past import Then, marks_of, of_each_term, rarity_in, then, together
from pipeline.stores.points import Found, IndexShape, Nearby, Nearest, Points
from pipeline.stores.scope import searched
from schemas.events import SparseVector
from schemas.search import Hit, Mode, SearchFilter

T = TypeVar("T")

_NO_TERMS = SparseVector()
_SPARE = 8
"""Points read beyond the limit, to see whether a tie goes on there."""
_MARGIN = 2
"""So many times what is asked for is looked at first: a filter may leave a part of it only."""
_MOST = 1_024
"""Points read for one question: a tie longer than that is not worth a user's whole index."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The half of the index that answers."""

    points: Points
    shape: IndexShape
    generations: Generations
    now: Callable[[], datetime]
    hot: HotVectors | None

    async def closest(
        self,
        user_id: str,
        question: Embedding,
        *,
        filter: SearchFilter,
        limit: int,
        min_score: float | None,
        past: Past | None = None,
    ) -> Sequence[Hit]:
        where = searched(user_id, filter, self.now())
        text = fitting_question(question.text, self.shape)
        beside = await self._then(past)
        wanted = limit + _SPARE
        found = await self._nearest(user_id, text, where, wanted, beside)
        # Many texts of a user may be the same: which of them are told must not be left to chance.
        while _ties_on(found, limit, wanted):
            wanted = min(4 * wanted, _MOST)
            found = await self._nearest(user_id, text, where, wanted, beside)
        now = self.now()
        hits = sorted(
            (hit(each, now) for each in found), key=lambda hit: (-hit.score, hit.memory_id)
        )
        return [hit for hit in hits[:limit] if min_score is None or hit.score >= min_score]

    async def _then(self, past: Past | None) -> Then | None:
        if past is None:
            return None
        there = await self.points.fetch(marks_of(past)) if past.states else {}
        return await then(past, there)

    async def _nearest(
        self, user_id: str, text: Floats, where: Every, limit: int, beside: Then | None
    ) -> Sequence[Found]:
        async def find(first: Nearby | None) -> Sequence[Found]:
            (found,) = await self._ask([Nearest("text", text, limit, first=first)], where, beside)
            return found

        return await self._looking(user_id, text if beside is None else None, limit, find)

    async def _looking(
        self,
        user_id: str,
        text: Floats | None,
        limit: int,
        find: Callable[[Nearby | None], Awaitable[T]],
    ) -> T:
        """What is found when told where to look first; the same as without."""
        if self.hot is None or text is None:
            return await find(None)
        generation = await self.generations.of(user_id)
        first = await self.hot.nearest(user_id, text, limit * _MARGIN) if generation else None
        found = await find(first)
        # A write meanwhile: then it may have been looked for where it was before.
        if first is None or generation == await self.generations.of(user_id):
            return found
        return await find(None)

    async def _ask(
        self,
        requests: Sequence[Nearest],
        where: Every,
        beside: Then | None,
        terms: SparseVector = _NO_TERMS,
    ) -> Sequence[Sequence[Found]]:
        if beside is None:
            return await self.points.ask(requests, where)
        said = beside.said(terms)
        told = await self.points.ask([*requests, *of_each_term(said)], beside.unchanged(where))
        rarity = rarity_in(said, told[len(requests) :])
        return together(told, await beside.ask(requests, where, rarity), requests)

    async def candidates(
        self,
        user_id: str,
        question: Question,
        *,
        filter: SearchFilter,
        mode: Mode,
        depth: int,
        past: Past | None = None,
    ) -> Sequence[Candidate]:
        now = self.now()
        where = searched(user_id, filter, now)
        beside = await self._then(past)
        wanted = depth + _SPARE
        found = await self._found(user_id, question, mode, wanted, where, beside)
        # As in `closest`. What is alike by words alone is many, and meaning tells it apart.
        telling: Sequence[Way] = (
            ("lexical", "lexical_in_period") if mode == "lexical" else ("dense", "dense_in_period")
        )
        while any(_ties_on(found.get(way, ()), depth, wanted) for way in telling):
            wanted = min(4 * wanted, _MOST)
            found = await self._found(user_id, question, mode, wanted, where, beside)
        return candidates(question, closest_of(found, depth), depth, now)

    async def _found(
        self,
        user_id: str,
        question: Question,
        mode: Mode,
        limit: int,
        where: Every,
        beside: Then | None,
    ) -> Mapping[Way, Sequence[Found]]:
        text = fitting_question(question.embedding.text, self.shape)

        async def find(first: Nearby | None) -> Mapping[Way, Sequence[Found]]:
            requests = _requests(question, text, mode, limit, first)
            if not requests:
                return {}
            terms = question.terms if "lexical" in requests else _NO_TERMS
            found = await self._ask(list(requests.values()), where, beside, terms)
            return dict(zip(requests, found, strict=True))

        looks_near = mode != "lexical" and beside is None
        return await self._looking(user_id, text if looks_near else None, limit, find)


def _requests(
    question: Question, text: Floats, mode: Mode, depth: int, first: Nearby | None
) -> Mapping[Way, Nearest]:
    """What to ask the engine; tokens and topics only place what meaning and words have found."""
    requests: dict[Way, Nearest] = {}
    named = happened_in(question.periods)
    if mode != "lexical":
        requests["dense"] = Nearest("text", text, depth, first=first)
        if question.periods:
            requests["dense_in_period"] = Nearest("text", text, depth, within=named)
    if mode != "dense" and question.terms.indices:
        requests["lexical"] = Nearest("bm25", question.terms, depth)
        if question.periods:
            requests["lexical_in_period"] = Nearest("bm25", question.terms, depth, within=named)
    among = tuple(requests.values())
    if mode == "hybrid" and len(question.embedding.tokens):
        tokens = question.embedding.tokens.astype(np.float32)
        requests["tokens"] = Nearest("tokens", tokens, len(among) * depth, among)
    if mode == "hybrid" and question.topics is not None and len(question.topics):
        requests["topics"] = Nearest("topics", question.topics, len(among) * depth, among)
    return requests


def _ties_on(found: Sequence[Found], limit: int, wanted: int) -> bool:
    """Whether the last that is told scores as the last that was read, and there may be more."""
    if not len(found) == wanted < _MOST:
        return False
    return alike(found[limit - 1].score) == alike(found[-1].score)
