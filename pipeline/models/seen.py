"""Vectors of texts that were seen before: the same text and model give the same vectors."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

import numpy as np

from pipeline.ports import TOKEN_DIMENSIONS, Cache, Embedder, Embedding

TTL_S: Final = 24 * 3_600


class Remembering:
    """Embedder that asks another one only for what the cache does not have."""

    def __init__(self, embedder: Embedder, cache: Cache) -> None:
        self._embedder, self._cache = embedder, cache
        self.model, self.dimensions = embedder.model, embedder.dimensions

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        known = await recalled(self._cache, self._embedder, texts)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            made = dict(zip(new, await self._embedder.embed(new), strict=True))
            await remember(self._cache, self.model, made)
            known |= made
        return [known[text] for text in texts]

    async def close(self) -> None:
        """Nothing to do: whoever opened the other one closes it."""


async def recalled(cache: Cache, embedder: Embedder, texts: Sequence[str]) -> dict[str, Embedding]:
    """The vectors of those texts that the cache has."""
    found = await cache.get_many([_key(embedder.model, text) for text in texts])
    known = {
        text: unpacked(value, embedder.dimensions)
        for text, value in zip(texts, found, strict=True)
        if value is not None
    }
    return {text: embedding for text, embedding in known.items() if embedding is not None}


async def remember(cache: Cache, model: str, fresh: Mapping[str, Embedding]) -> None:
    """Keeps the vectors of texts for a day."""
    entries = {
        _key(model, text): embedding.text.tobytes() + embedding.tokens.tobytes()
        for text, embedding in fresh.items()
    }
    if entries:
        await cache.put_many(entries, ttl_s=TTL_S)


def unpacked(value: bytes, dimensions: int) -> Embedding | None:
    """An embedding as the cache keeps it, the text's vector first; None where it is not ours."""
    text, tokens = value[: 4 * dimensions], value[4 * dimensions :]
    if len(text) < 4 * dimensions or len(tokens) % (2 * TOKEN_DIMENSIONS):
        return None
    halves = np.frombuffer(tokens, np.float16).reshape(-1, TOKEN_DIMENSIONS)
    return Embedding(np.frombuffer(text, np.float32), halves)


def _key(model: str, text: str) -> str:
    """Names a text's vectors without telling the text."""
    return f"seen:{model}:{sha256(text.encode()).hexdigest()}"
