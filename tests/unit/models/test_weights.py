"""Where a model's weights are found."""

from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.models.weights import fetch, locate


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_default_model_is_in_its_wheel(name: str) -> None:
    source = locate(name)
    assert source.name == "all-MiniLM-L6-v2"
    assert (fetch(source) / "model.safetensors").is_file()


def model(folder: Path, settings: str) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(settings)
    return str(folder)


def test_a_folder_is_known_by_its_name_and_its_content(tmp_path: Path) -> None:
    source = locate(model(tmp_path / "my-model", "{}"))
    assert source.name.startswith("my-model@")
    assert source.place == tmp_path / "my-model"


def test_folders_of_one_name_are_one_model_if_they_hold_the_same(tmp_path: Path) -> None:
    first, copy, other = (
        locate(model(tmp_path / place / "my-model", settings)).name
        for place, settings in (("a", "{}"), ("b", "{}"), ("c", "[]"))
    )
    assert first == copy != other


def test_a_folder_whose_files_change_is_another_source(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = locate(str(tmp_path)).stamp
    assert locate(str(tmp_path)).stamp == before
    (tmp_path / "config.json").write_text("{ }")
    assert locate(str(tmp_path)).stamp != before


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds no model"):
        locate(str(tmp_path))


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "../x", "", "a b"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="no folder"):
        locate(name)


def test_any_other_name_is_one_of_the_hub() -> None:
    source = locate("BAAI/bge-small-en-v1.5")
    assert (source.name, source.place) == ("BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5")
