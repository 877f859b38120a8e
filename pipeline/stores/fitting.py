"""Vectors, checked before any engine sees them.

Qdrant Edge takes NaN for good, and keeps a point that it refused in its log, where it comes back.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Unusable
from pipeline.ports import TOKEN_DIMENSIONS, Floats
from pipeline.stores.points import IndexShape, PointVectors
from schemas.events import (
    MemoryEnriched,
    SparseVector,
    Vectors,
)

_GREATEST_FLOAT32 = float(np.finfo(np.float32).max)


def fitting_vectors(event: MemoryEnriched, shape: IndexShape) -> PointVectors:
    """The event's vectors, checked. Raises Unusable.

    Checked before any engine sees them: Qdrant Edge takes NaN for good, and keeps a point that it
    refused in its log, where it comes back.
    """
    if event.model != shape.model:
        raise Unusable(
            f"The vectors are by the model {event.model!r}, this index holds those of "
            f"{shape.model!r}: embed the memory again."
        )
    text = matrix(event.text_vector, shape.dimensions, "text_vector").astype(np.float32)
    if len(text) != 1:
        raise Unusable(f"text_vector has {len(text)} rows, not 1.")
    tokens = matrix(event.token_vectors, TOKEN_DIMENSIONS, "token_vectors")
    topics = matrix(event.topic_vectors, shape.dimensions, "topic_vectors")
    _check_terms(event.lexical_vector)
    return PointVectors(
        text[0], tokens.astype(np.float16), topics.astype(np.float32), event.lexical_vector
    )


def matrix(vectors: Vectors, width: int, name: str) -> NDArray[np.floating]:
    """`vectors` as rows of `width` finite numbers. Raises Unusable."""
    count, columns = vectors.shape
    if count and columns != width:
        raise Unusable(f"{name} has {columns} dimensions, this index has {width}.")
    # Without rows the columns may be any number, more than there can be too.
    dtype = "<f4" if vectors.dtype == "float32" else "<f2"
    rows = np.frombuffer(vectors.data, dtype).reshape(count, width)
    # Beyond what half floats can hold they would turn infinite in the index.
    if not (np.abs(rows) <= np.finfo(np.float16).max).all():
        raise Unusable(f"{name} holds a number that is not finite, or beyond 65504.")
    return rows


def _check_terms(terms: SparseVector) -> None:
    if len(set(terms.indices)) != len(terms.indices):
        raise Unusable("lexical_vector names a term twice.")
    if not all(abs(value) <= _GREATEST_FLOAT32 for value in terms.values):
        raise Unusable("lexical_vector holds a weight that is infinite as a float32.")


def fitting_question(text: Floats, shape: IndexShape) -> Floats:
    """A question's vector, checked. Raises Unusable."""
    if text.shape != (shape.dimensions,):
        raise Unusable(f"The question has shape {text.shape}, this index ({shape.dimensions},).")
    if not np.isfinite(text).all():
        raise Unusable("The question's vector holds a number that is not finite.")
    return text
