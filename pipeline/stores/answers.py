"""Answers given before, for as long as nothing of their user's memories has changed.

What is kept is the ranking: keys, versions and scores, under a hash of the whole question and the user's
generation (`generations.py`). No word of a memory or of a question is kept, and the states are read from the
index again for each answer. So what was forgotten cannot be shown whatever the cache holds, nor can another
user's memory; and where a state is gone or another, though the generation does not say so yet, there is no
answer, and the index is asked.

A lexical score also counts how rare a word is in the whole index. Other users' writes move that, a little;
an answer may be a day behind in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.domain.identity import memory_key
from pipeline.ports import Cache, MemoryVectors
from pipeline.stores.caches import Caches
from schemas.search import Hit, KnownMemory

TTL_S: Final = 24 * 3_600


class Ranked(BaseModel):
    """One hit without what it says."""

    key: UUID
    version: int
    given: dict[str, Any]
    """All that a hit has beside its memory: the score."""


_RANKING: TypeAdapter[list[Ranked]] = TypeAdapter(list[Ranked])
_OF_THE_MEMORY: Final = set(KnownMemory.model_fields)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to one question belongs, as things stand."""

    user_id: str
    key: str


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """Answers of one desk, or of many that share a cache."""

    vectors: MemoryVectors
    cache: Cache
    under: str
    """What the answers depend on beside question and memories: model, weights, version."""

    @classmethod
    def of(cls, caches: Caches, vectors: MemoryVectors) -> Self | None:
        """None where answers are not to be kept."""
        return cls(vectors, caches.answers, caches.under) if caches.answers else None

    async def place(self, user_id: str, question: str) -> Place | None:
        """To be asked for before the search. `question` tells apart all that can be asked.

        None where nothing may be kept just now. Raises Unavailable, and Refused without a user.
        """
        generation = await self.vectors.generation(user_id)
        if generation is None:
            return None
        # Each part with its length: two different triples never spell the same key.
        parts = (self.under, user_id, str(generation), question)
        spelt = "".join(f"{len(part)}:{part}" for part in parts)
        return Place(user_id, f"answer:{sha256(spelt.encode()).hexdigest()}")

    async def recall(self, place: Place) -> Sequence[Hit] | None:
        """The answer that belongs there; None where there is none, or it does not hold any more.

        Of questions that do not ask for archived memories.
        """
        (value,) = await self.cache.get_many([place.key])
        if value is None:
            return None
        try:
            ranking = _RANKING.validate_json(value)
        except ValidationError:
            # Not ours, or of another version of ours.
            return None
        states = await self.vectors.states(place.user_id, [each.key for each in ranking])
        hits = [
            Hit(**dict(state), **each.given)
            for each, state in zip(ranking, states, strict=True)
            if state is not None and state.version == each.version and state.tier != "archived"
        ]
        return hits if len(hits) == len(ranking) else None

    async def keep(self, place: Place, hits: Sequence[Hit]) -> None:
        """Keeps what a search has found that began after `place` was asked for."""
        ranking = [
            Ranked(
                key=memory_key(place.user_id, hit.memory_id),
                version=hit.version,
                given=hit.model_dump(exclude=_OF_THE_MEMORY, exclude_defaults=True),
            )
            for hit in hits
        ]
        await self.cache.put_many({place.key: _RANKING.dump_json(ranking)}, ttl_s=TTL_S)
