"""The fixed rotation of token vectors."""

from hashlib import blake2b

import numpy as np
import pytest

from pipeline.models.projection import TOKEN_DIMENSIONS, projection


@pytest.mark.parametrize("width", [64, 384, 768])
def test_its_columns_are_orthonormal(width: int) -> None:
    matrix = projection(width)
    assert matrix.shape == (width, TOKEN_DIMENSIONS)
    assert matrix.T @ matrix == pytest.approx(np.eye(TOKEN_DIMENSIONS), abs=1e-5)


def test_a_narrow_model_loses_nothing() -> None:
    matrix = projection(32)
    assert matrix.shape == (32, TOKEN_DIMENSIONS)
    assert matrix @ matrix.T == pytest.approx(np.eye(32), abs=1e-5)


def test_it_never_changes() -> None:
    """Stored vectors would no longer be comparable with new ones."""
    rounded = np.round(projection(384).astype(np.float64), 5) + 0.0
    assert blake2b(rounded.astype("<f4").tobytes(), digest_size=8).hexdigest() == "1c3965bc29c64ea6"


def test_it_keeps_angles() -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 384)).astype(np.float32)
    near = vectors[0] + 0.3 * vectors[1]
    cosines = [
        _cosine(vectors[0], near),
        _cosine(*(np.stack([vectors[0], near]) @ projection(384))),
    ]
    assert cosines[1] == pytest.approx(cosines[0], abs=0.05)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
