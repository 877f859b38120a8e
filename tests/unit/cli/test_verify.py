"""What `verify` says where nobody can tell all."""

import pytest

from pipeline.cli.verify import (
    _show,  # pyright: ignore[reportPrivateUsage]
    as_json,
)
from pipeline.verifying.verifying import Report


def test_what_waits_before_the_log_is_no_equality(capsys: pytest.CaptureFixture[str]):
    report = Report(keep=20, compared=7, unread={"classifier": 3})
    assert not report.equal
    assert report.undecided
    told = as_json(report, None, 0.1)
    assert (told["equal"], told["unread"]) == (False, {"classifier": 3})
    _show(report, None, 0.1)
    out, err = capsys.readouterr()
    assert "Equal" not in out
    assert "3  accepted, still before the classifier, which does not get on" in out
    assert "hybrid-memory status" in err


def test_all_read_and_the_same_is_equal(capsys: pytest.CaptureFixture[str]):
    report = Report(keep=20, compared=6_099)
    _show(report, None, 0.1)
    assert "Equal: 6,099 keys of both stores, with those of what was forgotten" in (
        capsys.readouterr().out
    )
    assert report.equal
    assert not report.undecided
