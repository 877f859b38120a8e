"""How topics are made and kept: what the brokers are told of them, and what they must say."""

from typing import Any

import pytest
from aiokafka.errors import KafkaError, NodeNotReadyError, TopicAuthorizationFailedError

from pipeline.kafka.topics import led, settings_of
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


class Told:
    """A cluster that says one thing after another of its topics."""

    def __init__(self, *told: list[list[dict[str, Any]]] | KafkaError) -> None:
        self._told = list(told)

    async def known_everywhere(self, _: object) -> list[list[dict[str, Any]]]:
        now = self._told.pop(0)
        if isinstance(now, KafkaError):
            raise now
        return now


def topic(*leaders: int) -> dict[str, Any]:
    return {"topic": "made", "partitions": [{"leader": leader} for leader in leaders]}


@pytest.mark.parametrize(
    "too_soon",
    [[[topic(1, 2)], []], [[topic(1, 2)], [topic(1, -1)]], [[], [topic()]], NodeNotReadyError()],
    ids=["unknown to one", "of one partition unled", "announced alone", "nobody there"],
)
async def test_a_topic_is_waited_for_until_every_broker_knows_its_leaders(
    too_soon: list[list[dict[str, Any]]] | KafkaError,
) -> None:
    cluster: Any = Told(too_soon, [[topic(1, 2)], [topic(1, 2)]])
    assert await led(cluster, ["made"]) == {"made": 2}


async def test_who_may_not_ask_of_topics_does_not_wait_for_them() -> None:
    cluster: Any = Told(TopicAuthorizationFailedError())
    with pytest.raises(TopicAuthorizationFailedError):
        await led(cluster, ["made"])
