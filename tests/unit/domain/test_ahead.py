"""A version from a clock that is days ahead is not used, and each reading of its record says so."""

import pytest

from pipeline.domain.versions import MAX_AHEAD_MS, check_not_ahead
from pipeline.errors import Unusable
from schemas.events import MAX_VERSION

NOW_MS = 1_773_480_413_589
YEAR_9999 = 253_402_300_799_999_999


@pytest.mark.parametrize("ahead_ms", [-NOW_MS + 1, -1, 0, 3_600_000, MAX_AHEAD_MS])
def test_clocks_may_differ(ahead_ms: int) -> None:
    check_not_ahead((NOW_MS + ahead_ms) * 1_000 + 999, NOW_MS)


@pytest.mark.parametrize(
    "version", [(NOW_MS + MAX_AHEAD_MS + 1) * 1_000, min(YEAR_9999, MAX_VERSION), MAX_VERSION]
)
def test_what_nobody_could_revise_for_days_is_unusable(version: int) -> None:
    with pytest.raises(Unusable, match="days ahead of its record"):
        check_not_ahead(version, NOW_MS)


def test_a_record_without_a_time_says_nothing_of_its_version() -> None:
    with pytest.raises(Unusable, match="no timestamp"):
        check_not_ahead(1, -1)
