"""A sentence-transformers model as one function: ids and mask -> text vectors and token vectors.

The projection of the token vectors is a part of it, so that it runs where the model runs: done by numpy
beside it, the threads of numpy's matrix product would take the model's cores, waiting busily.

This module imports torch: only what runs torch should import it.
"""

import os
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize
from transformers.utils import logging

from pipeline.models.projection import projection


class SeeingModel(torch.nn.Module):
    """The whole model, its own pooling included, with both outputs of one forward pass."""

    projection: torch.Tensor

    def __init__(self, model: SentenceTransformer, *, width: int) -> None:
        """`width`: of the model's last hidden states."""
        super().__init__()
        self.model = model
        matrix = torch.from_numpy(projection(width).copy()).to(model.device, model.dtype)
        self.register_buffer("projection", matrix)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """texts x tokens, twice -> texts x dimensions, and texts x tokens x 64, normalised."""
        seen = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
        # Normalised first: what is projected is a direction, whatever the norm of a hidden state.
        directions = normalize(seen["token_embeddings"], dim=-1)
        return seen["sentence_embedding"], normalize(directions @ self.projection, dim=-1)


def load(
    weights: Path, *, dtype: torch.dtype = torch.float32, device: str | None = None
) -> SentenceTransformer:
    """The model in `weights`, ready to infer. Never touches the network: the weights are here."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    model = SentenceTransformer(
        str(weights), device=device, model_kwargs={"dtype": dtype}, local_files_only=True
    )
    return model.eval()
