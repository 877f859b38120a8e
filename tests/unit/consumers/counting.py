"""A model that tells what it was asked for."""

from collections.abc import Sequence

from pipeline.models.hashing import HashingEmbedder
from pipeline.ports import Embedding


class CountingEmbedder(HashingEmbedder):
    """Remembers which texts it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        self.texts += texts
        return await super().embed(texts)
