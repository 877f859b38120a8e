"""An embedder without a model: texts that share words lie close. For tests that are not about meaning.

Each word gets a direction of its own from its hash; a text lies in the direction of the sum of its words.
"car" and "automobile" are as far apart as any two words, so nothing about recall can be learnt from it.
"""

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np

from pipeline.domain.lexical import STOP_WORDS
from pipeline.models.projection import TOKEN_DIMENSIONS, projection
from pipeline.models.vectors import MAX_TOKEN_VECTORS, evenly_spaced, normalised
from pipeline.ports import Embedding, Floats

_WORD: Final = re.compile(r"\w+")


class HashingEmbedder:
    """An `Embedder` that is the same on every machine, and opens at once."""

    def __init__(self, dimensions: int = 384) -> None:
        self._dimensions = dimensions

    @property
    def model(self) -> str:
        return f"hashing-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """One embedding a text, in order."""
        if not texts:
            return []
        return await asyncio.to_thread(lambda: [self._embedding(text) for text in texts])

    async def close(self) -> None:
        """There is nothing to close."""

    def _embedding(self, text: str) -> Embedding:
        words = _WORD.findall(text.lower())
        told = [word for word in words if word not in STOP_WORDS] or words
        # A text without words still has a place, its own.
        directions = [_direction(word, self._dimensions) for word in told or [text]]
        whole = normalised(np.sum(directions, axis=0))
        if not words:
            return Embedding(text=whole, tokens=np.empty((0, TOKEN_DIMENSIONS), np.float16))
        kept = np.stack(directions)[evenly_spaced(len(directions), MAX_TOKEN_VECTORS)]
        tokens = normalised(kept @ projection(self._dimensions)).astype(np.float16)
        return Embedding(text=whole, tokens=tokens)


@lru_cache(maxsize=2**14)
def _direction(word: str, dimensions: int) -> Floats:
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    raw = np.random.PCG64(int.from_bytes(digest, "little")).random_raw(dimensions)
    # Centred uniform numbers: in this many dimensions their directions are as random as a Gaussian's.
    return normalised((raw >> np.uint64(11)).astype(np.float32) * np.float32(2.0**-52) - 1)
