"""What is told of a hit is the same whichever engine found it."""

from pipeline.stores.found import rounded


def test_scores_agree_where_float32_does() -> None:
    assert rounded(0.99999994) == rounded(1.0000001) == 1.0
    assert rounded(-1.0000002) == -1.0
    assert rounded(0.1234561) == rounded(0.1234559)
