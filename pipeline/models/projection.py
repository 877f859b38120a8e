"""One fixed rotation that takes a model's hidden states to 64 dimensions.

A random orthonormal projection keeps angles well enough that late interaction loses no recall against
the full width, and asks nothing of any data: the same matrix serves every model, machine and index.
It must never change: vectors made with another one would not be comparable with those that are stored.
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.ports import TOKEN_DIMENSIONS, Floats

_SEED: Final = 20_240_613


@lru_cache(maxsize=4)
def projection(width: int) -> Floats:
    """width x 64, the columns orthonormal; for a width under 64 the rows are.

    QR of a seeded Gaussian, the diagonal of R made positive (Mezzadri 2007, "How to generate random
    matrices from the classical compact groups": without that, signs differ between LAPACKs).
    """
    tall = _gaussian(max(width, TOKEN_DIMENSIONS), min(width, TOKEN_DIMENSIONS))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diagonal(r))
    matrix = (q if width >= TOKEN_DIMENSIONS else q.T).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _gaussian(rows: int, columns: int) -> NDArray[np.float64]:
    """Standard normal numbers, by Box and Muller from the raw stream.

    numpy promises never to change the raw stream of PCG64; it promises no such thing of
    `Generator.standard_normal`.
    """
    raw = np.random.PCG64(_SEED).random_raw(2 * rows * columns)
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniform[::2]))
    angle = 2.0 * np.pi * uniform[1::2]
    return (radius * np.cos(angle)).reshape(rows, columns)
