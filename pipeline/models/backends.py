"""What runs a model: OpenVINO or torch, each in several precisions. None is the fastest everywhere.

A batch of token ids goes in; text vectors and token vectors come out, both of one forward pass.
"""

import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from pipeline.models.prepared import Backend, Graph, Prepared
from pipeline.models.tokens import Ints
from pipeline.ports import Floats

_MAX_STREAMS: Final = 8
_OPENVINO: Final[dict[Backend, tuple[Graph, str]]] = {
    "openvino-fp32": ("fp32", "f32"),
    "openvino-bf16": ("fp32", "bf16"),
    "openvino-int8": ("int8", "f32"),
}
"""Backend -> which converted model, and the precision of what is not quantized."""

_FIRST_CALL: Final = threading.Lock()
"""A process's first call of OpenVINO sets up its conversion of arrays, behind a lock of its own and with
Python's held: two threads whose first calls meet wait for each other, and the process stands still."""


class Encoder(Protocol):
    """One model on one backend."""

    @property
    def workers(self) -> int:
        """How many threads may call `encode` at once."""
        ...

    @property
    def batch_tokens(self) -> int:
        """The batch, padding included, from which on a larger one gains nothing."""
        ...

    def encode(self, ids: Ints, mask: Ints) -> tuple[Floats, Floats]:
        """texts x tokens -> texts x dimensions, and texts x tokens x 64, normalised. Blocks."""
        ...


def open_encoder(prepared: Prepared, backend: Backend, *, threads: int) -> Encoder:
    """Loads what `prepared` holds for `backend`."""
    if backend in _OPENVINO:
        graph, precision = _OPENVINO[backend]
        return OpenVinoEncoder(prepared.graph(graph), precision, threads=threads)
    return TorchEncoder(prepared, half=backend == "torch-bf16", threads=threads)


def graph_of(backend: Backend) -> Graph | None:
    """The converted model that a backend runs; None for torch, which runs the weights themselves."""
    return _OPENVINO[backend][0] if backend in _OPENVINO else None


class OpenVinoEncoder:
    """A converted model on OpenVINO's CPU runtime; neither torch nor transformers is imported.

    As many batches run at once as there are cores, one thread each. A single request that spreads over
    all cores waits at every layer for the core that something else is using.
    """

    batch_tokens = 1024

    def __init__(self, graph: Path, precision: str, *, threads: int) -> None:
        forbid_telemetry()
        import openvino

        self.workers = min(threads, _MAX_STREAMS)
        compiled = openvino.Core().compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": self.workers,
                "INFERENCE_PRECISION_HINT": precision,
                # Several processes share the cores: let the scheduler place the threads.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._requests = queue.SimpleQueue[Any]()
        for _ in range(self.workers):
            self._requests.put(compiled.create_infer_request())
        with _FIRST_CALL:
            self.encode(np.ones((1, 1), np.int64), np.ones((1, 1), np.int64))

    def encode(self, ids: Ints, mask: Ints) -> tuple[Floats, Floats]:
        request = self._requests.get()
        try:
            outputs = request.infer([ids, mask], share_inputs=True)
            return outputs[0], outputs[1]
        finally:
            self._requests.put(request)


class TorchEncoder:
    """The model as sentence-transformers runs it, on a GPU where torch finds one."""

    workers = 1
    batch_tokens = 4096

    def __init__(self, prepared: Prepared, *, half: bool, threads: int) -> None:
        # The weights are here: whatever is not must not be looked for elsewhere.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch

        from pipeline.models.torch_model import SeeingModel, load

        torch.set_num_threads(threads)
        model = load(prepared.weights, dtype=torch.bfloat16 if half else torch.float32)
        self._model = SeeingModel(model, width=prepared.describe().width)
        self._device = model.device

    def encode(self, ids: Ints, mask: Ints) -> tuple[Floats, Floats]:
        import torch

        with torch.inference_mode():
            texts, tokens = self._model(
                torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)
            )
            return texts.float().cpu().numpy(), tokens.float().cpu().numpy()


def pad(windows: Sequence[Ints], *, pad_id: int, max_tokens: int) -> tuple[Ints, Ints]:
    """Ids and mask of a batch, as long as `padded` says of its longest window."""
    length = padded(max(len(window) for window in windows), max_tokens=max_tokens)
    ids = np.full((len(windows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(windows), length), dtype=np.int64)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = window
        mask[row, : len(window)] = 1
    return ids, mask


def padded(tokens: int, *, max_tokens: int) -> int:
    """The length that a window of `tokens` is run at: a multiple of 16 where the model reads so many.

    Few lengths are few kernels to compile, and they fill the tiles of the matrix units.
    """
    return min(-(-tokens // 16) * 16, max_tokens)


def forbid_telemetry() -> None:
    """Makes OpenVINO and NNCF do without their telemetry package, as where it is not installed.

    It would write a client id into the home folder and send what models are converted. Call it before
    either is imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
