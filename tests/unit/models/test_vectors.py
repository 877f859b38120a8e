"""Hidden states -> vectors, and windows -> one text."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import Unusable
from pipeline.models.batching import Seen
from pipeline.models.prepared import Description
from pipeline.models.tokens import Ints, Window
from pipeline.models.vectors import MAX_TOKEN_VECTORS, evenly_spaced, join, see
from pipeline.ports import Floats

DESCRIPTION = Description(
    dimensions=8, width=8, max_tokens=32, pad_id=9, lowercase=False, weights=""
)


def window(length: int, *telling: int) -> Window:
    return Window(ids=np.ones(length, np.int64), telling=np.array(telling, np.intp))


def seen(direction: int, tokens: int = 0) -> Seen:
    rows = np.zeros((tokens, 64), np.float16)
    rows[:, 0] = 1
    return Seen(np.eye(3, dtype=np.float32)[direction], rows)


class Recorder:
    """Gives each token the vector of its place; keeps what it was asked."""

    workers = 1
    batch_tokens = 64

    def encode(self, ids: Ints, mask: Ints) -> tuple[Floats, Floats]:
        self.ids, self.mask = ids, mask
        places = np.eye(64, dtype=np.float32)[: ids.shape[1]]
        return np.full((len(ids), 8), 3, np.float32), np.stack([places] * len(ids))


def test_a_batch_is_padded_with_the_models_own_token_and_masked() -> None:
    recorder = Recorder()
    see(recorder, DESCRIPTION, [window(20), window(3)])
    assert recorder.ids.shape == (2, 32)
    assert list(recorder.ids[1]) == [1] * 3 + [9] * 29
    assert list(recorder.mask.sum(axis=1)) == [20, 3]


def test_no_batch_is_longer_than_the_model_reads() -> None:
    recorder = Recorder()
    see(recorder, replace(DESCRIPTION, max_tokens=20), [window(19)])
    assert recorder.ids.shape == (1, 20)


def test_each_window_gets_the_tokens_that_tell_something() -> None:
    windows = [window(5, 1, 3), window(4), window(9, 1, 2, 7)]
    seen = see(Recorder(), DESCRIPTION, windows)
    assert [list(one.tokens.argmax(axis=1)) for one in seen] == [[1, 3], [], [1, 2, 7]]
    assert np.linalg.norm(seen[0].text) == pytest.approx(1)


def test_windows_weigh_as_much_as_they_have_tokens() -> None:
    joined = join([window(30), window(10)], [seen(0), seen(1)])
    assert joined.text == pytest.approx(np.array([3, 1, 0]) / np.sqrt(10))


def test_many_token_vectors_are_thinned_evenly() -> None:
    joined = join([window(9)] * 3, [seen(0, 1000)] * 3)
    assert joined.tokens.shape == (MAX_TOKEN_VECTORS, 64)


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(0, 4, []), (1, 4, [0]), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (10, 4, [0, 3, 6, 9])],
)
def test_evenly_spaced_keeps_the_ends(count: int, most: int, kept: list[int]) -> None:
    assert list(evenly_spaced(count, most)) == kept


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_vector_that_points_nowhere_is_unusable(value: float) -> None:
    nowhere = Seen(np.full(3, value, np.float32), np.zeros((0, 64), np.float16))
    with pytest.raises(Unusable, match="no finite vector"):
        join([window(3)], [nowhere])
