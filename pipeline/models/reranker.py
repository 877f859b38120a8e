"""A question and texts -> how well each answers it: a cross-encoder behind the `Reranker` port.

It reads the question and a text together, word against word, which no vector of a text alone can tell.
So nothing of it can be computed ahead: it costs a forward pass for each text, at every question.
"""

import asyncio
import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog

from pipeline.errors import Refused, Unavailable
from pipeline.models.backends import forbid_telemetry
from pipeline.models.prepared import usable_cores
from pipeline.models.weights import fetch, locate

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

MAX_TOKENS: Final = 256
"""Of a question and a text together; the rest of the longer of the two is not read."""
_BATCH: Final = 16
"""Pairs of one forward pass: a question that comes meanwhile waits for no more."""
_CLASSIFIER: Final = "ForSequenceClassification"
_LANGUAGE_MODEL: Final = "ForCausalLM"
"""Models that give a score; in any other the library would put a head of random numbers."""

_log = structlog.get_logger(__name__)


async def open_reranker(model: str, *, threads: int | None = None) -> "ModelReranker":
    """The cross-encoder in a folder, or of a name on the hub. `threads`: cores it may use, or all.

    Raises Refused where there is none, or it does not give one score a text; Unavailable where it cannot
    be fetched now.
    """
    return await asyncio.to_thread(_opened, model, threads or usable_cores())


def _opened(model: str, threads: int) -> "ModelReranker":
    source = locate(model)
    folder = fetch(source)
    if not _gives_scores(folder):
        raise Refused(
            f"RERANKER_MODEL: {model} is no cross-encoder: it has no head that gives a score. An "
            "embedding model cannot rerank; name one as cross-encoder/ms-marco-MiniLM-L6-v2, or its folder."
        )
    try:
        loaded = load(folder, threads=threads)
        given = read(loaded, "what is it?", ["It is a few words."])
    except Exception as error:
        raise Refused(
            f"RERANKER_MODEL: {model} cannot be loaded or run by sentence-transformers ({error}): name "
            "another"
        ) from error
    if given.shape != (1,):
        raise Refused(
            f"RERANKER_MODEL: {model} gives {given.size} scores for a text and not one: name a model "
            "that says how well a text answers a question"
        )
    _log.info("reranker opened", model=source.name, device=str(loaded.device))
    return ModelReranker(source.name, loaded)


class ModelReranker:
    """One cross-encoder. Its coroutines belong to one event loop, and never block it."""

    def __init__(self, model: str, encoder: "CrossEncoder") -> None:
        self._model = model
        self._encoder = encoder
        # One thread: torch spreads a batch over the cores by itself.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reranker")

    @property
    def model(self) -> str:
        return self._model

    async def scores(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        """The model's logit for each text, in order. Who is cancelled has no further batch computed.

        The batches of several questions take turns. Raises Unavailable where the model fails, or gives
        what is no number.
        """
        loop = asyncio.get_running_loop()
        # Texts of like length go together, so that little is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        given = np.zeros(len(texts))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            read_ = [texts[i] for i in batch]
            given[batch] = await loop.run_in_executor(self._thread, self._read, question, read_)
        # The same text gives the same score beside longer ones too, but for the last bits.
        return [round(one, 4) for one in given.tolist()]

    def _read(self, question: str, texts: Sequence[str]) -> Any:
        try:
            given = read(self._encoder, question, texts)
        except Exception as error:
            # Whatever it is, memory or a fault in the model: what was found stays found.
            _log.exception("the reranker failed", model=self._model)
            raise Unavailable(f"the model {self._model} failed; the log says why") from error
        if not np.isfinite(given).all():
            raise Unavailable(f"the model {self._model} gave what is no number")
        return given

    async def close(self) -> None:
        """Waits for the batch that is being computed; further ones are not."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)


def read(encoder: "CrossEncoder", question: str, texts: Sequence[str]) -> np.ndarray:
    """One forward pass: a logit for each text, greater is better. Blocks."""
    from torch.nn import Identity

    pairs = [(question, text) for text in texts]
    return encoder.predict(
        pairs, batch_size=len(pairs), activation_fn=Identity(), show_progress_bar=False
    )


def load(folder: Path, *, threads: int) -> "CrossEncoder":
    """The model in `folder`, ready to infer. Never touches the network. Blocks for some seconds.

    On a GPU where torch finds one, otherwise on OpenVINO's CPU runtime, which is two to eight times as fast
    as torch there: it takes the precision that the processor computes by itself.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    forbid_telemetry()
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging as hugging

    hugging.disable_progress_bar()
    hugging.set_verbosity_error()
    torch.set_num_threads(threads)
    if torch.accelerator.is_available() or not _kind(folder).endswith(_CLASSIFIER):
        encoder = CrossEncoder(str(folder), local_files_only=True)
    else:
        encoder = _converted(folder, threads)
    encoder.max_seq_length = min(encoder.max_seq_length or MAX_TOKENS, MAX_TOKENS)
    return encoder.eval()


def _converted(folder: Path, threads: int) -> "CrossEncoder":
    from sentence_transformers import CrossEncoder

    # It has much to say about converting that nobody here can act on.
    logging.getLogger("optimum").setLevel(logging.ERROR)
    config = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    with warnings.catch_warnings(action="ignore"):
        return CrossEncoder(
            str(folder),
            local_files_only=True,
            backend="openvino",
            model_kwargs={"export": True, "ov_config": config},
        )


def _gives_scores(folder: Path) -> bool:
    ours = _json(folder / "config_sentence_transformers.json").get("model_type") == "CrossEncoder"
    return ours or _kind(folder).endswith((_CLASSIFIER, _LANGUAGE_MODEL))


def _kind(folder: Path) -> str:
    """What its config calls the model, as BertForSequenceClassification."""
    kinds: Sequence[str] = _json(folder / "config.json").get("architectures") or [""]
    return kinds[-1]


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
