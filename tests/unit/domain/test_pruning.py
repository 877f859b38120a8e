"""Only what is worth little in every way may go."""

from datetime import UTC, datetime, timedelta

from pipeline.domain.pruning import Rule, may_go, worth
from pipeline.domain.tiers import Tiers
from schemas.events import MemoryTiered
from tests.builders import tiered

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RULE = Rule(below=0.2, unused_for=90 * DAY)


def goes(
    told: MemoryTiered | None = None,
    *,
    importance: float = 0.1,
    published_at: datetime = NOW - 200 * DAY,
) -> bool:
    found = worth(
        told,
        importance=importance,
        precedence=5,
        published_at=published_at,
        now=NOW,
        tiers=Tiers(),
    )
    return may_go(found, RULE)


def test_what_was_never_important_nor_asked_for_goes() -> None:
    assert goes()


def test_what_was_important_stays() -> None:
    assert not goes(importance=0.2)


def test_what_was_told_lately_stays() -> None:
    assert not goes(published_at=NOW - 89 * DAY)


def test_what_was_recalled_lately_stays() -> None:
    assert not goes(tiered("m", recalled_at=NOW - 10 * DAY, strength=0.01))
    assert goes(tiered("m", recalled_at=NOW - 100 * DAY, strength=0.5))


def test_what_is_strong_stays_however_long_ago() -> None:
    ends = {"medium_until": NOW + DAY, "long_until": NOW + DAY}
    assert not goes(tiered("m", recalled_at=NOW - 100 * DAY, strength=0.9, tier="long", **ends))


def test_what_is_archived_does_not_go_again_unless_it_was_said_anew() -> None:
    assert not goes(tiered("m", tier="archived", archived_version=5, strength=0))
    assert goes(tiered("m", tier="archived", archived_version=4, strength=0))
