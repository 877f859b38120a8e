"""Which backend is the fastest here? Two seconds of trying them all.

They take turns, and the best of each one's turns counts: whatever else runs on the machine then disturbs
them alike.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from time import perf_counter
from typing import Final, NamedTuple

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


class _Asked(NamedTuple):
    backend: Backend
    embedder: Embedder
    question_ms: float


async def measure(
    embedders: Mapping[Backend, Embedder],
) -> tuple[list[Figures], dict[str, str]]:
    """What each backend did, and why some were not tried further than one question at a time.

    The first embedder is the measure of what the others' vectors should be.
    """
    asked = [_Asked(b, e, await _question_ms(e)) for b, e in embedders.items()]
    limit_ms = SLOWEST_QUESTION * min(one.question_ms for one in asked)
    tried = [asked[0], *(one for one in asked[1:] if one.question_ms <= limit_ms)]
    slow = [one for one in asked if one not in tried]
    texts = memories(_TEXTS, seed=MEASURING_SEED, sentences=(3, 4))
    seen = [await one.embedder.embed(texts) for one in tried]
    rates = await _texts_per_s([one.embedder for one in tried], texts)
    figures = [
        Figures(one.backend, rate, one.question_ms, _cosine(vectors, seen[0]))
        for one, rate, vectors in zip(tried, rates, seen, strict=True)
    ]
    return figures, {one.backend: f"a question takes {one.question_ms:.1f} ms" for one in slow}


def choose(figures: Sequence[Figures]) -> Figures:
    """Of the fastest in batches, the one whose vectors are closest to fp32's, then the quickest to answer.

    Those count as fastest that are within ABOUT_AS_FAST of the best; out of the question are those
    whose vectors differ too much and those that keep a question waiting. The first, which is fp32
    itself, where nothing else is left.
    """
    limit_ms = SLOWEST_QUESTION * min(of.question_ms for of in figures)
    fit = [of for of in figures if of.cosine >= LEAST_COSINE and of.question_ms <= limit_ms]
    fit = fit or [figures[0]]
    enough = ABOUT_AS_FAST * max(of.texts_per_s for of in fit)
    fastest = [of for of in fit if of.texts_per_s >= enough]
    return max(fastest, key=lambda of: (round(of.cosine, 3), -of.question_ms))


async def _texts_per_s(embedders: Sequence[Embedder], texts: Sequence[str]) -> list[float]:
    """Each one's best of several rounds."""
    rates = [0.0] * len(embedders)
    for _ in range(_ROUNDS):
        for i, embedder in enumerate(embedders):
            started = perf_counter()
            await embedder.embed(texts)
            rates[i] = max(rates[i], len(texts) / (perf_counter() - started))
    return rates


async def _question_ms(embedder: Embedder) -> float:
    times = list[float]()
    for question in questions(12, seed=MEASURING_SEED):
        started = perf_counter()
        await embedder.embed([question])
        times.append((perf_counter() - started) * 1000)
    return min(times)


def _cosine(ones: Sequence[Embedding], others: Sequence[Embedding]) -> float:
    return fmean(float(np.dot(a.text, b.text)) for a, b in zip(ones, others, strict=True))
