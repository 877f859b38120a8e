"""Topics are kept as they are said to be, by Apache Kafka itself."""

from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.kafka.admin import asked
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.topics import settings_of
from schemas.topics import DAY_MS, ENRICHED, TOPICS, Topic

pytestmark = pytest.mark.connected


async def kept(kafka: KafkaConnection, topic: Topic, prefix: str) -> dict[str, str]:
    """What the broker says of one topic."""
    async with asked(kafka) as admin:
        (answer,) = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic.under(prefix))]
        )
    told: Any = answer
    ((code, _, _, _, entries),) = told.resources
    assert code == 0
    return {entry[0]: entry[1] for entry in entries}


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
async def test_a_topic_is_kept_as_it_is_said_to_be(
    kafka: KafkaConnection, prefix: str, topic: Topic
) -> None:
    wanted = settings_of(topic, 1)
    told = await kept(kafka, topic, prefix)
    assert {name: told[name] for name in wanted} == wanted


async def test_a_writer_that_is_a_week_behind_sees_every_event(
    kafka: KafkaConnection, prefix: str
) -> None:
    told = await kept(kafka, ENRICHED, prefix)
    assert int(told["min.compaction.lag.ms"]) == 7 * DAY_MS
