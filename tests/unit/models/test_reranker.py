"""A cross-encoder on the disk, behind its port. Its weights are random: what it prefers means nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Refused, Unavailable
from pipeline.models import reranker
from pipeline.models.reranker import MAX_TOKENS, ModelReranker, load, open_reranker
from pipeline.models.weights import DEFAULT_MODEL, locate

QUESTION = "who likes thai food?"


def saved(folder: Path, *, labels: int = 1, positions: int = 512) -> Path:
    """A tiny cross-encoder with the default model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig.from_dict(
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": positions,
            "num_labels": labels,
            # Far apart, so that a difference is no rounding.
            "initializer_range": 1.0,
        }
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate(DEFAULT_MODEL).place).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Loaded once: that takes seconds."""
    return load(saved(tmp_path_factory.mktemp("tiny-cross-encoder")), threads=1)


@pytest.fixture
async def opened(encoder: Any) -> AsyncIterator[ModelReranker]:
    model = ModelReranker("tiny", encoder)
    yield model
    await model.close()


async def test_each_text_gets_a_score_in_order_whatever_stands_beside_it(
    opened: ModelReranker,
) -> None:
    texts = [f"thai food {'is hot ' * (i % 7)}{i}" for i in range(40)]
    given = await opened.scores(QUESTION, texts)
    assert len(set(given)) > 1
    for i in (0, 17, 39):
        (alone,) = await opened.scores(QUESTION, [texts[i]])
        assert given[i] == pytest.approx(alone, abs=2e-4)


async def test_the_same_text_gets_the_same_score(opened: ModelReranker) -> None:
    one, _, other = await opened.scores(
        QUESTION, ["thai food", "a longer text about food", "thai food"]
    )
    assert one == other
    assert await opened.scores(QUESTION, []) == []


async def test_the_question_counts(opened: ModelReranker) -> None:
    (one,) = await opened.scores("when is the exam?", ["thai food"])
    (other,) = await opened.scores("quien come arroz", ["thai food"])
    assert one != other


async def test_no_more_than_a_model_can_read_is_read(tmp_path: Path, opened: ModelReranker) -> None:
    long = "food " * 8_000
    assert np.isfinite(await opened.scores(long, [long])).all()
    one, other = await opened.scores(QUESTION, ["food " * MAX_TOKENS, "food " * 2 * MAX_TOKENS])
    assert one == other
    short = await open_reranker(str(saved(tmp_path / "short", positions=32)), threads=1)
    assert short.model.startswith("short@")
    assert len(await short.scores(long, [long])) == 1
    await short.close()


async def test_the_loop_goes_on_and_questions_take_turns(
    opened: ModelReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: Any, question: str, texts: Sequence[str]) -> np.ndarray:
        order.append(question)
        time.sleep(0.02)
        return np.full(len(texts), 0.5)

    order, ticks = list[str](), 0
    monkeypatch.setattr(reranker, "read", slow)
    asked = asyncio.gather(*(opened.scores(name, ["text"] * 64) for name in ("one", "other")))
    while not asked.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks > 10
    assert order == ["one", "other"] * 4


async def test_who_is_cancelled_costs_no_further_batch(
    opened: ModelReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: Any, question: str, texts: Sequence[str]) -> np.ndarray:
        nonlocal batches
        batches += 1
        reading.set()
        cancelled.wait(30)
        return np.full(len(texts), 0.5)

    batches, reading, cancelled = 0, Event(), Event()
    monkeypatch.setattr(reranker, "read", slow)
    asked = asyncio.create_task(opened.scores(QUESTION, ["text"] * 1_000))
    assert await asyncio.to_thread(reading.wait, 30)
    asked.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.sleep(0.2)
    assert batches == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_what_is_no_number_is_told(
    opened: ModelReranker, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    def no_number(*_: Any) -> np.ndarray:
        return np.array([0.5, number])

    monkeypatch.setattr(reranker, "read", no_number)
    with pytest.raises(Unavailable, match="no number"):
        await opened.scores(QUESTION, ["one", "other"])


async def test_a_model_that_breaks_is_told(
    opened: ModelReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> np.ndarray:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(reranker, "read", breaks)
    with pytest.raises(Unavailable, match="the log says why"):
        await opened.scores(QUESTION, ["one"])


async def test_an_embedding_model_is_no_cross_encoder() -> None:
    with pytest.raises(Refused, match="no cross-encoder"):
        await open_reranker(DEFAULT_MODEL)


async def test_a_model_of_several_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="3 scores"):
        await open_reranker(str(saved(tmp_path / "classes", labels=3)))


async def test_a_folder_that_is_not_there_or_is_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no folder"):
        await open_reranker(str(tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    with pytest.raises(Refused, match="cannot be loaded"):
        await open_reranker(str(broken))
