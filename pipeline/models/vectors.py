"""Windows -> a batch -> what the model sees of each, and of a whole text.

Token vectors come from the same forward pass as the text's vector: what matters of a text is found word
by word (late interaction) at no further cost of the model.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Unusable
from pipeline.models.backends import Encoder, pad
from pipeline.models.batching import Seen
from pipeline.models.prepared import Description
from pipeline.models.tokens import Window
from pipeline.ports import Embedding, Floats

MAX_TOKEN_VECTORS: Final = 1024


def see(encoder: Encoder, description: Description, windows: Sequence[Window]) -> list[Seen]:
    """One forward pass: the vectors of each window. What is not finite is left for `join` to refuse."""
    ids, mask = pad(
        [window.ids for window in windows],
        pad_id=description.pad_id,
        max_tokens=description.max_tokens,
    )
    texts, tokens = encoder.encode(ids, mask)
    row = np.repeat(np.arange(len(windows)), [len(window.telling) for window in windows])
    column = np.concatenate([window.telling for window in windows])
    told = tokens[row, column].astype(np.float16)
    ends = np.cumsum([len(window.telling) for window in windows])
    parts = np.split(told, ends[:-1])
    return [Seen(text, part) for text, part in zip(normalised(texts), parts, strict=True)]


def join(windows: Sequence[Window], seen: Sequence[Seen]) -> Embedding:
    """One text's embedding from its windows: their mean, weighted by tokens, and all token vectors.

    Of more than MAX_TOKEN_VECTORS, evenly spaced ones are kept: the end of a long text is found too.
    Raises Unusable where a vector is not finite.
    """
    text = seen[0].text
    if len(seen) > 1:
        pairs = zip(windows, seen, strict=True)
        text = normalised(np.sum([len(window.ids) * part.text for window, part in pairs], axis=0))
    tokens = np.concatenate([part.tokens for part in seen])
    tokens = tokens[evenly_spaced(len(tokens), MAX_TOKEN_VECTORS)]
    if not (np.isfinite(text).all() and np.isfinite(tokens).all() and text.any()):
        raise Unusable("the model makes no finite vector of the text")
    return Embedding(text=text, tokens=tokens)


def evenly_spaced(count: int, most: int) -> NDArray[np.intp]:
    """`most` of the indices below `count`, the first and the last among them; all if there are fewer."""
    kept = min(count, most)
    return np.arange(kept) * (count - 1) // max(kept - 1, 1)


def normalised(rows: Floats) -> Floats:
    """Each row, or the one vector, with length 1; zeros stay zeros."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.maximum(norms, 1e-12)).astype(np.float32)
