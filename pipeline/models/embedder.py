"""Texts -> vectors: a sentence-transformers model behind the `Embedder` port.

    texts -> windows of tokens -> batches -> one forward pass -> text vectors and token vectors

At the first start on a machine the model is converted and its backends are measured, in a process of
their own; later starts read what was kept and import neither torch nor transformers.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, Self

import structlog

from pipeline.errors import Refused
from pipeline.models.backends import Encoder, graph_of, open_encoder, padded
from pipeline.models.batching import Batches
from pipeline.models.child import run_preparation
from pipeline.models.prepared import (
    BACKENDS,
    Backend,
    Choice,
    Description,
    Prepared,
    this_machine,
    usable_cores,
)
from pipeline.models.tokens import Tokens
from pipeline.models.vectors import join, see
from pipeline.models.weights import DEFAULT_MODEL, locate
from pipeline.ports import Embedding

_log = structlog.get_logger(__name__)


async def open_embedder(
    model: str = DEFAULT_MODEL,
    *,
    backend: Backend | Literal["auto"] = "auto",
    cache_dir: Path,
    threads: int | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> "ModelEmbedder":
    """The embedder of `model`: the default's name, a folder, or a name on the hub.

    `auto` takes the backend that was fastest when they were measured on this machine. `threads`: cores
    that the model may use, all of them unless given. What is converted and measured is kept in
    `cache_dir`; `on_progress` hears what takes time.

    Raises Refused where there is no such model, or it does not run on `backend`; Unavailable where it
    cannot be fetched now.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise Refused(f"there is no backend {backend}: choose auto, {', '.join(BACKENDS)}")
    threads = threads or usable_cores()
    prepared = Prepared.of(locate(model), cache_dir)
    if not _ready(prepared, backend, threads=threads):
        await run_preparation(model, backend, cache_dir, threads, on_progress=on_progress)
    chosen = _chosen(prepared, backend, threads=threads)
    return await asyncio.to_thread(ModelEmbedder.load, prepared, chosen, threads=threads)


async def described(
    model: str = DEFAULT_MODEL,
    *,
    cache_dir: Path,
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[str, int]:
    """The name of `model` and the dimensions of its vectors, for who embeds nothing: it is not loaded.

    The first on a machine to ask has it read in a process of its own, without converting or measuring it.
    Raises Refused where there is no such model; Unavailable where it cannot be fetched now.
    """
    prepared = Prepared.of(locate(model), cache_dir)
    if not prepared.described:
        await run_preparation(model, None, cache_dir, usable_cores(), on_progress=on_progress)
    return prepared.source.name, prepared.describe().dimensions


def _ready(prepared: Prepared, backend: Backend | Literal["auto"], *, threads: int) -> bool:
    """Whether the cache holds all that is needed."""
    if not prepared.described:
        return False
    if backend == "auto":
        choice = prepared.choice(this_machine(threads=threads))
        if choice is None:
            return False
        backend = choice.backend
    graph = graph_of(backend)
    return prepared.graph(graph).is_file() if graph else prepared.weights.is_dir()


def _chosen(prepared: Prepared, backend: Backend | Literal["auto"], *, threads: int) -> Backend:
    if backend != "auto":
        _log.info("embedding backend given", model=prepared.source.name, backend=backend)
        return backend
    choice = prepared.choice(this_machine(threads=threads))
    assert choice is not None, "the preparation ended well and left no choice"
    _log.info("embedding backend chosen", model=prepared.source.name, **_told(choice))
    return choice.backend


def _told(choice: Choice) -> dict[str, object]:
    chosen = next(of for of in choice.figures if of.backend == choice.backend)
    return {
        "backend": chosen.backend,
        "question_ms": round(chosen.question_ms, 1),
        "cosine": round(chosen.cosine, 4),
        "texts_per_s": {of.backend: round(of.texts_per_s) for of in choice.figures},
    }


class ModelEmbedder:
    """One model on one backend. Its coroutines belong to one event loop, and never block it."""

    def __init__(
        self, model: str, description: Description, tokens: Tokens, encoder: Encoder
    ) -> None:
        self._model = model
        self._dimensions = description.dimensions
        self._tokens = tokens
        self._batches = Batches(
            partial(see, encoder, description),
            workers=encoder.workers,
            batch_tokens=encoder.batch_tokens,
            padded=partial(padded, max_tokens=description.max_tokens),
        )

    @classmethod
    def load(cls, prepared: Prepared, backend: Backend, *, threads: int) -> Self:
        """Loads what was prepared. Blocks for about a second."""
        description = prepared.describe()
        tokens = Tokens(
            prepared.tokenizer(),
            max_tokens=description.max_tokens,
            lowercase=description.lowercase,
        )
        encoder = open_encoder(prepared, backend, threads=threads)
        return cls(prepared.source.name, description, tokens, encoder)

    @property
    def model(self) -> str:
        return self._model

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """One embedding a text, in order; the texts of concurrent callers share batches.

        Raises Unusable where a text is not valid Unicode, or the model makes no finite vector of it.
        """
        if not texts:
            return []
        cut = await asyncio.to_thread(lambda: [self._tokens.cut(text) for text in texts])
        seen = await self._batches.see([window for windows in cut for window in windows])
        bounds = pairwise(accumulate(map(len, cut), initial=0))
        of_texts = [seen[start:end] for start, end in bounds]
        return await asyncio.to_thread(lambda: list(map(join, cut, of_texts)))

    async def close(self) -> None:
        """Waits for what is being computed. Who still waits for a vector is cancelled."""
        await self._batches.close()
