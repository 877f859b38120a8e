"""Which backend is the fastest here? Two seconds of trying them all.

They take turns, and the best of each one's turns counts: whatever else runs on the machine then disturbs
them alike.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from time import perf_counter
from typing import Final

import numpy as np

from pipeline.models.calibration import MEASURING_SEED, memories, questions
from pipeline.models.prepared import Backend, Figures
from pipeline.ports import Embedder, Embedding

LEAST_COSINE: Final = 0.99
"""To the vectors of fp32, on average. Below, recall suffers."""
SLOWEST_QUESTION: Final = 4.0
"""Times the quickest. An emulated precision is thirty times slower: do not even try its batches."""
ABOUT_AS_FAST: Final = 0.85
"""What two seconds cannot tell apart on a machine that does other things too."""
_ROUNDS: Final = 3
_TEXTS: Final = 64


async def measure(
    embedders: Mapping[Backend, Embedder],
) -> tuple[Backend, dict[Backend, Figures], dict[Backend, str]]:
    """The fastest backend, what each one did, and why some were not tried.

    The first embedder is the measure of what the others' vectors should be.
    """
    first = next(iter(embedders))
    asked = {backend: await _question_ms(embedder) for backend, embedder in embedders.items()}
    limit_ms = SLOWEST_QUESTION * min(asked.values())
    tried: dict[Backend, Embedder] = {
        backend: embedder
        for backend, embedder in embedders.items()
        if backend == first or asked[backend] <= limit_ms
    }
    slow = {
        backend: f"a question takes {asked[backend]:.1f} ms"
        for backend in embedders
        if backend not in tried
    }
    texts = memories(_TEXTS, seed=MEASURING_SEED, sentences=(3, 4))
    seen = {backend: await embedder.embed(texts) for backend, embedder in tried.items()}
    rates = await _texts_per_s(tried, texts)
    figures: dict[Backend, Figures] = {
        backend: Figures(rates[backend], asked[backend], _cosine(seen[backend], seen[first]))
        for backend in tried
    }
    return choose(figures), figures, slow


def choose(figures: Mapping[Backend, Figures]) -> Backend:
    """Of the fastest in batches, the one whose vectors are closest to fp32's, then the quickest to answer.

    Those count as fastest that are within ABOUT_AS_FAST of the best; out of the question are those
    whose vectors differ too much and those that keep a question waiting. The first, which is fp32
    itself, where nothing else is left.
    """
    limit_ms = SLOWEST_QUESTION * min(of.question_ms for of in figures.values())
    fit: list[Backend] = [
        backend
        for backend, of in figures.items()
        if of.cosine >= LEAST_COSINE and of.question_ms <= limit_ms
    ]
    fit = fit or list(figures)[:1]
    enough = ABOUT_AS_FAST * max(figures[backend].texts_per_s for backend in fit)
    fastest = [backend for backend in fit if figures[backend].texts_per_s >= enough]
    return max(fastest, key=lambda b: (round(figures[b].cosine, 3), -figures[b].question_ms))


async def _texts_per_s(
    embedders: Mapping[Backend, Embedder], texts: Sequence[str]
) -> dict[Backend, float]:
    """Each one's best of several rounds."""
    rates: dict[Backend, float] = dict.fromkeys(embedders, 0.0)
    for _ in range(_ROUNDS):
        for backend, embedder in embedders.items():
            started = perf_counter()
            await embedder.embed(texts)
            rates[backend] = max(rates[backend], len(texts) / (perf_counter() - started))
    return rates


async def _question_ms(embedder: Embedder) -> float:
    times = list[float]()
    for question in questions(12, seed=MEASURING_SEED):
        started = perf_counter()
        await embedder.embed([question])
        times.append((perf_counter() - started) * 1000)
    return median(times[2:])


def _cosine(ones: Sequence[Embedding], others: Sequence[Embedding]) -> float:
    return fmean(float(np.dot(a.text, b.text)) for a, b in zip(ones, others, strict=True))
