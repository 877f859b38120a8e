"""What a model was made into for this machine, and what was measured of it: a folder in the cache.

    <model>-<stamp>/model.json       what the embedder must know of the model
                    tokenizer.json
                    fp32/, int8/     the converted graphs
                    choice-<machine>.json   the figures of every backend, and the fastest

Everything in it appears whole or not at all (written beside, then renamed), so reading needs no lock.
The stamp covers the weights and our way of converting them; the machine covers processor, cores and the
libraries' versions. Whatever changes, the next start makes or measures anew.
"""

import json
import os
import platform
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from pipeline.models.weights import Source

Backend = Literal["torch-fp32", "torch-bf16", "openvino-fp32", "openvino-bf16", "openvino-int8"]
"""What runs a model."""
BACKENDS: Final[Sequence[Backend]] = get_args(Backend)
Graph = Literal["fp32", "int8"]
"""A model as converted for OpenVINO."""

_RECIPE: Final = 2
"""Counts up when we convert or quantize differently."""
_LIBRARIES: Final = ("openvino", "nncf", "torch", "transformers", "sentence-transformers")


@dataclass(frozen=True, slots=True)
class Description:
    """What the embedder must know of a model."""

    dimensions: int
    width: int
    """Of the last hidden states."""
    max_tokens: int
    """Of one window, special tokens included."""
    pad_id: int
    lowercase: bool
    weights: str
    """The folder with the weights when this was written."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one backend did on this machine."""

    backend: Backend
    texts_per_s: float
    """In batches, on texts of about 66 tokens."""
    question_ms: float
    """One short text alone, at best."""
    cosine: float
    """Mean cosine to the same texts' vectors in fp32."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which backend to use on this machine, and why."""

    backend: Backend
    figures: Sequence[Figures]
    left_out: Mapping[str, str]
    """Backends that do not run this model here, and the reason."""
    machine: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The folder of one model."""

    source: Source
    folder: Path

    @classmethod
    def of(cls, source: Source, cache_dir: Path) -> Self:
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "--", source.name).strip(".-")
        stamp = blake2b(f"{_RECIPE} {source.stamp}".encode(), digest_size=4).hexdigest()
        return cls(source=source, folder=cache_dir / f"{slug}-{stamp}")

    @property
    def lock(self) -> Path:
        """Held while something is added to the folder."""
        return self.folder.with_name(self.folder.name + ".lock")

    @property
    def weights(self) -> Path:
        """The folder with the model's weights; asks for a description where they came from the hub."""
        if isinstance(self.source.place, Path):
            return self.source.place
        return Path(self.describe().weights)

    @property
    def described(self) -> bool:
        return (self.folder / "model.json").is_file()

    def describe(self) -> Description:
        return Description(**json.loads((self.folder / "model.json").read_text("utf-8")))

    def tokenizer(self) -> str:
        return (self.folder / "tokenizer.json").read_text("utf-8")

    def graph(self, name: Graph) -> Path:
        """The model as OpenVINO reads it."""
        return self.folder / name / "model.xml"

    def keep_description(self, description: Description, tokenizer: str) -> None:
        _write(self.folder / "tokenizer.json", tokenizer)
        _write(self.folder / "model.json", json.dumps(asdict(description), indent=2))

    @contextmanager
    def keeping_graph(self, name: Graph) -> Generator[Path]:
        """A path to write the graph to; it becomes the graph when the block ends well."""
        beside = self.folder / f".{name}.partial"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside / "model.xml"
        beside.replace(self.folder / name)

    def choice(self, machine: Mapping[str, Any]) -> Choice | None:
        """What was measured on such a machine; None where nothing was."""
        path = self._choice_path(machine)
        if not path.is_file():
            return None
        kept = json.loads(path.read_text("utf-8"))
        figures = [Figures(**of) for of in kept["figures"]]
        return Choice(kept["backend"], figures, kept["left_out"], kept["machine"])

    def keep_choice(self, choice: Choice) -> None:
        _write(self._choice_path(choice.machine), json.dumps(asdict(choice), indent=2))

    def _choice_path(self, machine: Mapping[str, Any]) -> Path:
        digest = blake2b(json.dumps(machine, sort_keys=True).encode(), digest_size=4).hexdigest()
        return self.folder / f"choice-{digest}.json"


def this_machine(*, threads: int) -> dict[str, Any]:
    """What a measurement depends on, as far as it can be told without importing anything heavy."""
    processor, abilities = _processor()
    return {
        "processor": processor,
        "abilities": abilities,
        "threads": threads,
        "gpu": shutil.which("nvidia-smi") is not None,
        "versions": {library: _version(library) for library in _LIBRARIES},
    }


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> tuple[str, str]:
    """Its name, and a digest of what it can do: virtual machines give many processors one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), platform.machine()
    pairs = [line.partition(":") for line in lines]
    told = {key.strip(): value.strip() for key, _, value in pairs}
    abilities = told.get("flags") or told.get("Features", "")
    digest = blake2b(" ".join(sorted(abilities.split())).encode(), digest_size=4).hexdigest()
    return told.get("model name", platform.machine()), digest


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _write(path: Path, content: str) -> None:
    beside = path.with_name(f".{path.name}.partial")
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(content, "utf-8")
    beside.replace(path)
