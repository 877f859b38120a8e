"""An import goes on where it stopped, and only there."""

import os
from pathlib import Path

import pytest

from pipeline.cli.places import Place, Sent, Source, drop, keep, kept, source_of


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


def test_a_line_that_was_sent_keeps_its_version_however_it_is_sent_again(file: Path):
    sent = Place(source=source(file)).sending(3, now=100).sending(7, now=200)
    again = sent.sending(2, now=900).sending(5, now=900).sending(9, now=900)
    assert [again.version_of(line) for line in range(1, 10)] == [
        *(101, 102, 103),
        *(201, 202, 203, 204),
        *(901, 902),
    ]


def test_no_two_lines_have_one_version(file: Path):
    """Not even where a batch has more lines than microseconds went by."""
    sent = Place(source=source(file)).sending(50, now=100).sending(60, now=101)
    assert len({sent.version_of(line) for line in range(1, 61)}) == 60


def test_what_lies_behind_is_not_kept(file: Path):
    sent = Place(source=source(file)).sending(3, now=100).sending(7, now=200).sending(9, now=300)
    assert sent.sent_after(3) == (Sent(after=3, base=200), Sent(after=7, base=300))
    assert sent.sent_after(5) == (Sent(after=3, base=200), Sent(after=7, base=300))
    assert sent.sent_after(9) == (Sent(after=7, base=300),)


def test_a_place_that_does_not_say_how_lines_were_sent_sends_them_anew(file: Path):
    place = Place(source=source(file), line=2, read=6).sending(4, now=100)
    assert [place.version_of(line) for line in (3, 4, 5)] == [101, 102, 103]


def test_what_was_sent_from_the_middle_on_is_not_known_from_the_start(file: Path):
    whole = Place(source=source(file)).sending(4, now=100)
    assert whole.from_the_start().sent == whole.sent
    assert Place(source=source(file), line=2).sending(4, now=100).from_the_start().sent == ()
