"""An import goes on where it stopped, and only there."""

import os
from pathlib import Path

import pytest

from pipeline.cli.places import Place, Source, drop, keep, kept, source_of


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "rows.jsonl"
    path.write_text("one\ntwo\n")
    return path


def source(
    file: Path,
    target: str = "cluster memory",
    user: str | None = None,
    *,
    overwrite: bool = False,
) -> Source:
    return source_of(file, target=target, user=user, overwrite=overwrite)


def test_a_place_is_found_again(file: Path):
    keep(Place(source=source(file), line=1, offset=4, accepted=1))
    found = kept(source(file))
    assert found is not None
    assert (found.line, found.offset, found.accepted) == (1, 4, 1)


def test_a_place_in_a_file_that_has_changed_is_none(file: Path):
    keep(Place(source=source(file), line=1, offset=4))
    os.utime(file, ns=(0, 0))
    assert kept(source(file)) is None


def test_another_cluster_has_another_place(file: Path):
    keep(Place(source=source(file), line=1, offset=4))
    assert kept(source(file, target="other memory")) is None
    assert kept(source(file)) is not None


def test_another_user_is_another_import(file: Path):
    keep(Place(source=source(file), line=1, offset=4))
    assert kept(source(file, user="bob")) is None


@pytest.mark.parametrize("before", [False, True])
def test_an_import_that_overwrites_does_not_go_on_from_one_that_did_not(file: Path, before: bool):
    keep(Place(source=source(file, overwrite=before), line=1, offset=4))
    assert kept(source(file, overwrite=not before)) is None
    assert kept(source(file, overwrite=before)) is not None


def test_a_place_that_does_not_say_whether_it_overwrote_is_none(file: Path, home: Path):
    keep(Place(source=source(file), line=1, offset=4))
    (place,) = (home / "home" / "imports").iterdir()
    place.write_text(place.read_text().replace('"overwrite":false', '"former":false'))
    assert kept(source(file)) is None


def test_a_place_that_cannot_be_read_is_none(file: Path, home: Path):
    keep(Place(source=source(file), line=1, offset=4))
    (place,) = (home / "home" / "imports").iterdir()
    place.write_text("{")
    assert kept(source(file)) is None


def test_a_dropped_place_is_gone(file: Path):
    keep(Place(source=source(file), line=1, offset=4))
    drop(source(file))
    assert kept(source(file)) is None
    drop(source(file))
