"""A sentence-transformers model -> a description, and graphs that OpenVINO runs.

The graph is that of the whole model, its pooling included, and gives both of its outputs: the text's
vector and the tokens' last hidden states. torch exports it and OpenVINO reads the export; no other
converter is needed. This module imports torch: only the preparation should import it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import openvino
import torch
from sentence_transformers import SentenceTransformer

from pipeline.errors import Refused
from pipeline.models.backends import load, pad
from pipeline.models.calibration import CALIBRATION_SEED, memories
from pipeline.models.prepared import Description, Graph, Prepared
from pipeline.models.tokens import Tokens

CALIBRATION_TEXTS: Final = 100
"""Three times as many take three times as long and are no closer to fp32."""
_UNLIMITED_TOKENS: Final = 8192
"""Some tokenizers name no limit; nothing that we accept is longer."""


class _Both(torch.nn.Module):
    """The model as a function of ids and mask, with both outputs."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
        return seen["sentence_embedding"], seen["token_embeddings"]


def describe(weights: Path) -> tuple[Description, str]:
    """What the embedder must know, and the tokenizer as JSON.

    Raises Refused where the folder holds no model of texts that we can run.
    """
    try:
        model = load(weights, dtype=torch.float32, device="cpu")
        tokenizer = model.tokenizer
        backend = tokenizer.backend_tokenizer
        with torch.inference_mode():
            texts, tokens = _Both(model)(*_sample(backend.encode("a few words").ids))
    except Exception as error:
        raise Refused(
            f"{weights} holds no text model that sentence-transformers loads ({error}): name another"
        ) from error
    described = Description(
        dimensions=texts.shape[1],
        width=tokens.shape[2],
        max_tokens=min(model.max_seq_length or _UNLIMITED_TOKENS, _UNLIMITED_TOKENS),
        pad_id=tokenizer.pad_token_id or 0,
        lowercase=bool(getattr(model[0], "do_lower_case", False)),
        weights=str(weights),
    )
    return described, backend.to_str()


def make(graph: Graph, prepared: Prepared, path: Path) -> None:
    """Writes a graph of the model to `path`; int8 is made from fp32."""
    made = _quantized(prepared) if graph == "int8" else _converted(prepared)
    openvino.save_model(made, path, compress_to_fp16=False)


def _converted(prepared: Prepared) -> openvino.Model:
    model = _Both(load(prepared.weights, dtype=torch.float32, device="cpu"))
    texts = torch.export.Dim("texts", min=1, max=4096)
    tokens = torch.export.Dim("tokens", min=2, max=prepared.describe().max_tokens)
    shape = {0: texts, 1: tokens}
    with torch.inference_mode():
        exported = torch.export.export(
            model, _sample(list(range(8))), dynamic_shapes=(shape, shape), strict=False
        )
    return openvino.convert_model(exported)


def _quantized(prepared: Prepared) -> openvino.Model:
    """Weights and activations in int8, the activations' ranges learnt from our own texts."""
    import nncf

    texts = memories(CALIBRATION_TEXTS, seed=CALIBRATION_SEED)
    return nncf.quantize(
        openvino.Core().read_model(prepared.graph("fp32")),
        nncf.Dataset(_inputs(prepared, texts)),
        subset_size=len(texts),
        model_type=nncf.ModelType.TRANSFORMER,
    )


def _inputs(prepared: Prepared, texts: Sequence[str]) -> list[list[np.ndarray]]:
    described = prepared.describe()
    tokens = Tokens(
        prepared.tokenizer(), max_tokens=described.max_tokens, lowercase=described.lowercase
    )
    return [
        list(pad([window.ids], pad_id=described.pad_id, max_tokens=described.max_tokens))
        for text in texts
        for window in tokens.cut(text)
    ]


def _sample(ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, so that the export takes the number of texts for a variable."""
    batch = torch.tensor([ids, ids])
    return batch, torch.ones_like(batch)
