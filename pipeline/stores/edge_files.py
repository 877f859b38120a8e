"""An Edge index on the disk: whose the directory is, which folder is in use, and how an index is made."""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from pipeline.errors import Refused
from pipeline.ports import TOKEN_DIMENSIONS
from pipeline.stores.points import INDEXED, IndexShape


def make_indexes(shard: edge.EdgeShard) -> None:
    """Makes the payload indexes that are missing: an earlier version of this program knew fewer."""
    there = shard.info().payload_schema
    for name in INDEXED.keys() - there.keys():
        kind = _PAYLOAD_INDEXES[INDEXED[name]]
        shard.update(edge.UpdateOperation.create_field_index(name, kind))


def current(directory: Path) -> str:
    """The name of the folder in use: a rebuild puts another in the place of the first."""
    try:
        return (directory / "current").read_text().strip()
    except FileNotFoundError:
        return "index"


def owned(directory: Path) -> TextIOWrapper:
    """The open lock file: the directory is ours until it is closed, or this process ends."""
    return locked(
        directory / "owner.lock",
        f"The index in {directory} already has an owner, and it can have one only: run the vector "
        "writer and the query consumer in the same process, or give both a Qdrant server with "
        "QDRANT_URL.",
    )


def locked(path: Path, refusal: str) -> TextIOWrapper:
    """The open lock file, held until it is closed. Raises Refused in these words where another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Refused(refusal) from None
    return lock


def make(folder: Path, shape: IndexShape) -> None:
    """Makes an empty index beside its place and moves it there whole."""
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    shard = edge.EdgeShard.create(str(fresh / "shard"), _config(shape.dimensions))
    make_indexes(shard)
    shard.close()
    with (fresh / "shape.json").open("w") as file:
        json.dump(asdict(shape), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(folder)


def check_shape(index: Path, shape: IndexShape) -> None:
    """Raises Refused where the folder holds the vectors of another model."""
    try:
        there = IndexShape(**json.loads((index / "shape.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise Refused(
            f"{index} is no index of ours, its shape.json cannot be read: name another directory."
        ) from error
    if there != shape:
        raise Refused(
            f"The index in {index.parent} holds vectors of {there.model} ({there.dimensions} "
            f"dimensions), this process makes those of {shape.model} ({shape.dimensions}): go on with "
            "the model that made them, or name another directory, or move to the new model with "
            "`hybrid-memory rebuild --from record`."
        )


_PLAIN = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)
_BEST_OF_EACH = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
_PAYLOAD_INDEXES: Mapping[str, Any] = {
    "tenant": edge.KeywordIndexParams(is_tenant=True),
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "datetime": edge.PayloadSchemaType.Datetime,
}


def _config(dimensions: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            "text": edge.EdgeVectorParams(
                size=dimensions, distance=edge.Distance.Cosine, hnsw_config=_PLAIN
            ),
            "tokens": edge.EdgeVectorParams(
                size=TOKEN_DIMENSIONS,
                distance=edge.Distance.Dot,
                multivector_config=_BEST_OF_EACH,
                datatype=edge.VectorStorageDatatype.Float16,
                hnsw_config=_PLAIN,
                memory=edge.Memory.Cold,
            ),
            "topics": edge.EdgeVectorParams(
                size=dimensions,
                distance=edge.Distance.Cosine,
                multivector_config=_BEST_OF_EACH,
                hnsw_config=_PLAIN,
                memory=edge.Memory.Cold,
            ),
        },
        sparse_vectors={"bm25": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        hnsw_config=_PLAIN,
    )
