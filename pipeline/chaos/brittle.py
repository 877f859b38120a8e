"""The command line with an embedder that refuses chosen texts: what the embedder of a chaos stack runs.

A model refuses a text once in a blue moon. Here it happens as often as the plan wants, at the place
where it would: one text makes the whole call unusable.
"""

import runpy
from collections.abc import Sequence
from typing import Any

from pipeline.chaos.plan import REFUSED_MARK
from pipeline.errors import Unusable
from pipeline.ports import Embedder, Embedding


class Brittle:
    """An embedder, but for texts that bear the mark."""

    def __init__(self, within: Embedder) -> None:
        self._within = within

    @property
    def model(self) -> str:
        return self._within.model

    @property
    def dimensions(self) -> int:
        return self._within.dimensions

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        if any(REFUSED_MARK in text for text in texts):
            raise Unusable("the model refuses the text")
        return await self._within.embed(texts)

    async def close(self) -> None:
        await self._within.close()


def main() -> None:
    """`hybrid-memory`, with every embedder brittle."""
    from pipeline.models import embedder

    whole = embedder.open_embedder

    async def open_brittle(*args: Any, **kwargs: Any) -> Brittle:
        return Brittle(await whole(*args, **kwargs))

    embedder.open_embedder = open_brittle  # pyright: ignore[reportAttributeAccessIssue]
    runpy.run_module("pipeline.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
