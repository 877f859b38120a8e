"""What is wrong is told in one line that can be kept anywhere."""

import pytest
from pydantic import ValidationError

from pipeline.domain.telling import told
from producers.client import NewMemory


def wrong(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        NewMemory.model_validate({"text": "x", "user_id": "alice"} | fields)
    return told(caught.value)


def test_it_names_the_field_and_the_remedy() -> None:
    assert wrong(text="") == "text: is empty: say what to remember"


def test_it_does_not_repeat_what_was_said() -> None:
    assert "secret" not in wrong(text="my secret\x00")


def test_a_key_of_somebody_elses_is_cut_and_made_storable() -> None:
    line = wrong(**{"k" * 5_000: 1, "\ud800": 1})
    assert len(line) < 1_000
    line.encode()
