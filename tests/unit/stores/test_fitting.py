"""A matrix that travels is read as rows of the index's width, or it is unusable: never anything else."""

import numpy as np
import pytest

from pipeline.errors import Unusable
from pipeline.stores.fitting import matrix
from schemas.events import Vectors


@pytest.mark.parametrize("columns", [0, 7, 64, 2**31, 2**62, 2**70])
def test_a_matrix_without_rows_has_the_width_that_is_asked_for(columns: int) -> None:
    empty = Vectors(dtype="float16", shape=(0, columns), data=b"")
    assert matrix(empty, 64, "token_vectors").shape == (0, 64)


@pytest.mark.parametrize("rows", [1, 2**31, 2**62, 2**70])
def test_rows_without_numbers_are_unusable(rows: int) -> None:
    """They once ended the process, and with it every other one that read the same record."""
    hollow = Vectors(dtype="float16", shape=(rows, 0), data=b"")
    with pytest.raises(Unusable, match="has 0 dimensions"):
        matrix(hollow, 64, "token_vectors")


def test_rows_come_in_their_order() -> None:
    data = np.arange(6, dtype="<f4").tobytes()
    rows = matrix(Vectors(dtype="float32", shape=(2, 3), data=data), 3, "text_vector")
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
