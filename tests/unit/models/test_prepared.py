"""What is kept of a model."""

from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.models.prepared import Choice, Description, Figures, Prepared, this_machine
from pipeline.models.weights import Source

DESCRIPTION = Description(
    dimensions=384, width=384, max_tokens=256, pad_id=0, lowercase=False, weights="somewhere"
)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return Prepared.of(Source("BAAI/bge small", "BAAI/bge", "1"), tmp_path)


def test_a_model_has_a_folder_of_its_own(prepared: Prepared, tmp_path: Path) -> None:
    assert prepared.folder.parent == tmp_path
    assert prepared.folder.name.startswith("BAAI--bge--small-")


def test_other_weights_have_another_folder(prepared: Prepared, tmp_path: Path) -> None:
    assert (
        Prepared.of(Source("BAAI/bge small", "BAAI/bge", "2"), tmp_path).folder != prepared.folder
    )


def test_a_description_is_kept(prepared: Prepared) -> None:
    assert not prepared.described
    prepared.keep_description(DESCRIPTION, "{}")
    assert prepared.described
    assert prepared.describe() == DESCRIPTION
    assert prepared.tokenizer() == "{}"
    assert prepared.weights == Path("somewhere")


def test_a_choice_is_that_of_one_machine(prepared: Prepared) -> None:
    here, there = this_machine(threads=2), this_machine(threads=4)
    choice = Choice(
        "openvino-int8", [Figures("openvino-int8", 400, 2, 0.997)], {"torch-bf16": "slow"}, here
    )
    prepared.keep_choice(choice)
    assert prepared.choice(here) == choice
    assert prepared.choice(there) is None


def test_a_graph_appears_whole_or_not_at_all(prepared: Prepared) -> None:
    with suppress(OSError), prepared.keeping_graph("fp32") as path:
        path.write_text("half")
        raise OSError("disk full")
    assert not prepared.graph("fp32").exists()
    with prepared.keeping_graph("fp32") as path:
        path.write_text("whole")
        assert not prepared.graph("fp32").exists()
    assert prepared.graph("fp32").read_text() == "whole"
