"""What does it cost to have the best hits read again?

Scores made-up memories against a question, as the query consumer does, at several depths, and prints the
milliseconds that a search takes longer. Without a model it takes one of the usual size (6 layers, 384
wide, as ms-marco-MiniLM-L6) with random weights: that costs what a trained one costs, and prefers nothing.

    python -m benchmarks.reranking [--model FOLDER] [--questions 20] [--json]
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stack import tell
from pipeline.models.calibration import memories
from pipeline.models.reranker import open_reranker
from pipeline.models.weights import DEFAULT_MODEL, locate

DEPTHS = (10, 30, 50, 100)
QUESTION = "what did Ana say about the deployment in early May?"


def usual_size(folder: Path) -> Path:
    """A cross-encoder with random weights."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig.from_dict(
        {
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "num_labels": 1,
        }
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate(DEFAULT_MODEL).place).save_pretrained(folder)
    return folder


async def run(model: str, questions: int) -> dict[str, Any]:
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    reranker = await open_reranker(model)
    results: dict[str, Any] = {
        "opened_s": time.perf_counter() - began,
        "memory_mb": (psutil.Process().memory_info().rss - before) / 2**20,
    }
    for depth in DEPTHS:
        texts = memories(depth, seed=1)
        await reranker.scores(QUESTION, texts)
        took_ms: list[float] = []
        for _ in range(questions):
            began = time.perf_counter()
            await reranker.scores(QUESTION, texts)
            took_ms.append((time.perf_counter() - began) * 1_000)
        results[f"p50_ms_of_{depth}"] = statistics.median(took_ms)
        results[f"best_ms_of_{depth}"] = min(took_ms)
    await reranker.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a cross-encoder's folder, or its name on the hub")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one object instead of lines")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hybrid-memory-") as folder:
        if given.model is None:
            tell("random weights, of the usual size")
        model = given.model or str(usual_size(Path(folder)))
        results = asyncio.run(run(model, given.questions))
    if given.json:
        print(json.dumps({name: round(value, 3) for name, value in results.items()}))
        return
    for name, value in results.items():
        print(f"{name:>18}  {value:.1f}")


if __name__ == "__main__":
    main()
