"""Made-up memories."""

from hashlib import blake2b

from pipeline.models.calibration import memories, questions


def test_they_are_the_same_everywhere() -> None:
    told = "\n".join(memories(100, seed=1)).encode()
    assert blake2b(told, digest_size=8).hexdigest() == "be3e734de1f83768"


def test_each_seed_gives_others() -> None:
    assert not set(memories(20, seed=1)) & set(memories(20, seed=2))


def test_every_slot_is_filled() -> None:
    assert not [text for text in [*memories(300, seed=3), *questions(50, seed=3)] if "{" in text]
