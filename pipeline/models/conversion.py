"""A sentence-transformers model -> a description, and graphs that OpenVINO runs.

The graph is that of the whole model with both of its outputs. torch exports it and OpenVINO reads the
export; no other converter is needed. This module imports torch: only the preparation should import it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import openvino
import torch

from pipeline.errors import Refused
from pipeline.models.backends import pad
from pipeline.models.calibration import CALIBRATION_SEED, memories
from pipeline.models.prepared import Description, Graph, Prepared
from pipeline.models.tokens import Tokens
from pipeline.models.torch_model import SeeingModel, load

CALIBRATION_TEXTS: Final = 100
"""Three times as many take three times as long and are no closer to fp32."""
_PROJECTION: Final = "token_projection"
_UNLIMITED_TOKENS: Final = 8192
"""Some tokenizers name no limit; nothing that we accept is longer."""


def describe(weights: Path) -> tuple[Description, str]:
    """What the embedder must know, and the tokenizer as JSON.

    Raises Refused where the folder holds no model of texts that we can run.
    """
    try:
        model = load(weights, device="cpu")
        tokenizer = model.tokenizer
        backend = tokenizer.backend_tokenizer
        ids, mask = _sample(backend.encode("a few words").ids)
        with torch.inference_mode():
            seen = model({"input_ids": ids, "attention_mask": mask})
    except Exception as error:
        raise Refused(
            f"{weights} holds no text model that sentence-transformers loads ({error}): name another"
        ) from error
    described = Description(
        dimensions=seen["sentence_embedding"].shape[1],
        width=seen["token_embeddings"].shape[2],
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
    described = prepared.describe()
    model = SeeingModel(load(prepared.weights, device="cpu"), width=described.width)
    shape = {
        0: torch.export.Dim("texts", min=1, max=4096),
        1: torch.export.Dim("tokens", min=2, max=described.max_tokens),
    }
    with torch.inference_mode():
        exported = torch.export.export(
            model, _sample(list(range(8))), dynamic_shapes=(shape, shape), strict=False
        )
    converted = openvino.convert_model(exported)
    _projection_of(converted).set_friendly_name(_PROJECTION)
    return converted


def _projection_of(model: openvino.Model) -> openvino.Node:
    """The last matrix product before the token vectors."""
    node = model.output(1).get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    return node


def _quantized(prepared: Prepared) -> openvino.Model:
    """Weights and activations in int8, the activations' ranges learnt from our own texts."""
    import nncf

    texts = memories(CALIBRATION_TEXTS, seed=CALIBRATION_SEED)
    return nncf.quantize(
        openvino.Core().read_model(prepared.graph("fp32")),
        nncf.Dataset(_inputs(prepared, texts)),
        subset_size=len(texts),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=[_PROJECTION]),
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
