"""How fast each backend embeds, beside what sentence-transformers does by itself.

All take turns in one process on the same texts, and the best turn of each counts; ratios are against
`SentenceTransformer.encode` in fp32 with batches of 32, which gives text vectors only. Ours give token
vectors too.

    python benchmarks/embedding.py [--json] [--texts 400] [--rounds 5] [--model NAME]
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Annotated, Any

import platformdirs
import structlog
import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import Refused
from pipeline.models.calibration import memories, questions
from pipeline.models.embedder import ModelEmbedder, open_embedder
from pipeline.models.prepared import BACKENDS, Prepared, this_machine, usable_cores
from pipeline.models.weights import DEFAULT_MODEL, fetch, locate
from pipeline.ports import Embedding

CACHE = Path(platformdirs.user_cache_dir("hybrid-memory")) / "models"
BASELINE = "SentenceTransformer.encode"

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Any]]]


def main(
    *,
    texts: Annotated[int, typer.Option(help="Made-up memories of about 66 tokens.")] = 400,
    rounds: Annotated[int, typer.Option(help="Turns that each backend gets.")] = 5,
    model: str = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measures every backend that runs here."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    result = asyncio.run(measured(model, memories(texts, seed=21, sentences=(3, 4)), rounds))
    if as_json:
        print(json.dumps(result))
    else:
        show(result)


async def measured(model: str, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Best throughput, median latency and likeness to the baseline, of each."""
    automatic = await open_embedder(model, cache_dir=CACHE, on_progress=_say)
    await automatic.close()
    embedders = await _opened(model)
    plain, truth = _baseline(model, texts)
    turns: dict[str, Embed] = {BASELINE: plain, **{b: e.embed for b, e in embedders.items()}}
    rates, latencies = dict.fromkeys(turns, 0.0), {name: list[float]() for name in turns}
    for turn in range(rounds):
        for name, embed in turns.items():
            _say(f"round {turn + 1} of {rounds}: {name}")
            rates[name] = max(rates[name], await _texts_per_s(embed, texts))
            latencies[name] += await _question_ms(embed)
    vectors = {name: await embedder.embed(texts) for name, embedder in embedders.items()}
    cosines = {BASELINE: 1.0, **{name: _cosine(seen, truth) for name, seen in vectors.items()}}
    return {
        "model": model,
        "texts": len(texts),
        "chosen": _choice(model),
        "backends": {
            name: {
                "texts_per_s": round(rates[name], 1),
                "throughput_ratio": round(rates[name] / rates[BASELINE], 2),
                "question_p50_ms": round(median(latencies[name]), 2),
                "question_p50_ratio": round(
                    median(latencies[name]) / median(latencies[BASELINE]), 2
                ),
                "cosine": round(cosines[name], 5),
            }
            for name in turns
        },
        "machine": this_machine(threads=usable_cores()),
    }


async def _opened(model: str) -> dict[str, ModelEmbedder]:
    """An embedder on every backend that runs this model."""
    embedders = dict[str, ModelEmbedder]()
    for backend in BACKENDS:
        try:
            embedders[backend] = await open_embedder(model, backend=backend, cache_dir=CACHE)
        except Refused as error:
            _say(f"{backend} is left out: {error}")
    return embedders


def _baseline(model: str, texts: Sequence[str]) -> tuple[Embed, Sequence[Any]]:
    """Plain sentence-transformers in fp32, and the vectors that it gives."""
    from pipeline.models.torch_model import load

    plain = load(fetch(locate(model)))

    async def embed(batch: Sequence[str]) -> Sequence[Any]:
        return list(plain.encode(list(batch), batch_size=32, normalize_embeddings=True))

    return embed, list(plain.encode(list(texts), normalize_embeddings=True))


async def _texts_per_s(embed: Embed, texts: Sequence[str]) -> float:
    started = perf_counter()
    await embed(texts)
    return len(texts) / (perf_counter() - started)


async def _question_ms(embed: Embed) -> list[float]:
    times = list[float]()
    for question in questions(20, seed=22):
        started = perf_counter()
        await embed([question])
        times.append((perf_counter() - started) * 1000)
    return times


def _cosine(seen: Sequence[Embedding], truth: Sequence[Any]) -> float:
    return fmean(float(one.text @ other) for one, other in zip(seen, truth, strict=True))


def _choice(model: str) -> str | None:
    machine = this_machine(threads=usable_cores())
    choice = Prepared.of(locate(model), CACHE).choice(machine)
    return choice.backend if choice else None


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    table = Table("backend", title=f"{result['model']}, {result['texts']} texts")
    for column in ("texts/s", "ratio", "question p50, ms", "ratio", "cosine"):
        table.add_column(column, justify="right")
    for name, row in result["backends"].items():
        chosen = " (chosen)" if name == result["chosen"] else ""
        table.add_row(name + chosen, *map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
