"""How topics are kept: what the broker is told of them."""

import pytest

from pipeline.kafka.topics import settings_of
from schemas.topics import ANSWERED, DAY_MS, ENRICHED, EVENTS, HOUR_MS, Topic


@pytest.mark.parametrize("copies", [1, 2])
def test_with_few_copies_the_cluster_decides_how_many_must_have_it(copies: int) -> None:
    assert "min.insync.replicas" not in settings_of(EVENTS, copies)


def test_of_three_copies_two_must_have_an_event_before_it_is_accepted() -> None:
    assert settings_of(EVENTS, 3)["min.insync.replicas"] == "2"


def test_a_compacted_topic_keeps_its_tombstones_for_its_retention() -> None:
    settings = settings_of(ENRICHED, 1)
    assert settings["cleanup.policy"] == "compact"
    assert settings["delete.retention.ms"] == str(ENRICHED.retention_ms)
    assert "retention.ms" not in settings


def test_what_is_compacted_is_kept_whole_for_as_long_as_events_are() -> None:
    assert settings_of(ENRICHED, 1)["min.compaction.lag.ms"] == str(EVENTS.retention_ms)
    assert "min.compaction.lag.ms" not in settings_of(EVENTS, 1)


@pytest.mark.parametrize(("topic", "closed_after_ms"), [(EVENTS, DAY_MS), (ANSWERED, HOUR_MS)])
def test_no_segment_stays_open_for_longer_than_what_it_holds_is_kept(
    topic: Topic, closed_after_ms: int
) -> None:
    assert settings_of(topic, 1)["segment.ms"] == str(closed_after_ms)
