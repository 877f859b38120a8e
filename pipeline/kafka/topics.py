"""Topics are made beforehand, with their partitions, compaction and retention.

A broker that makes them on first use would give each one partition and keep it a week. The memory
topics must agree in their number of partitions: an event keeps its partition from stage to stage.

On a cluster of three brokers or more there are three copies of everything, and two must have an event
before it counts as accepted: one broker may die, and nothing is lost nor stopped.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidReplicationFactorError,
    KafkaError,
    LeaderNotAvailableError,
    TopicAlreadyExistsError,
    for_code,
)
from tenacity import (
    AsyncRetrying,
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
    wait_fixed,
)

from pipeline.errors import Refused
from pipeline.kafka.admin import Admin, asked
from pipeline.kafka.connection import KafkaConnection, transient
from schemas.topics import (
    CLASSIFIED,
    DAY_MS,
    ENRICHED,
    EVENTS,
    RECALLED,
    STORED,
    TIERED,
    TOPICS,
    Topic,
)

COPIES = 3
"""As many as there are on a cluster that has as many brokers."""
BROKERS_PATIENCE_S = 30.0
"""How long topics wait for a broker that is away before they are made."""
ORDERED = (EVENTS, CLASSIFIED, ENRICHED, STORED, RECALLED, TIERED)
"""The memory topics: what stages read in order, and where their dead letters come from."""


async def ensure_topics(
    connection: KafkaConnection, prefix: str, *, partitions: int, replication_factor: int
) -> dict[str, int]:
    """Makes the topics that are missing; returns each one's partitions, by full name.

    `replication_factor` is the least: there are as many copies as the cluster can hold, up to three.
    Raises Unavailable, and Refused where the memory topics differ in their number of partitions.
    """
    async with asked(connection) as admin:
        existing = await _partitions(admin, prefix)
        missing = [topic for topic in TOPICS if topic.under(prefix) not in existing]
        # Beside topics that are there, a new one takes their number of partitions.
        wanted = next((existing[t.under(prefix)] for t in ORDERED if t not in missing), partitions)
        copies = max(replication_factor, await _copies(admin)) if missing else 0
        await _create(admin, prefix, missing, wanted, copies)
        counts = existing | await led(admin, [topic.under(prefix) for topic in missing])
    _agree({topic.under(prefix): counts[topic.under(prefix)] for topic in ORDERED})
    return counts


async def _copies(admin: Admin) -> int:
    """As many as there are brokers, or as the brokers would make by themselves, but at most three.

    A broker that is away for a moment must not cost the topics one copy for good.
    """
    brokers = [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
    return min(COPIES, max(len(brokers), await _copies_by_default(admin, brokers)))


async def _copies_by_default(admin: Admin, brokers: list[int]) -> int:
    """What a broker makes of a topic that says nothing; 0 where we may not ask."""
    if not brokers:
        return 0
    name = "default.replication.factor"
    asked = ConfigResource(ConfigResourceType.BROKER, str(brokers[0]), configs={name: ""})
    try:
        (answer,) = cast("list[Any]", await admin.describe_configs([asked]))
    except KafkaError:
        return 0
    told = {entry[0]: entry[1] for resource in answer.resources for entry in resource[4]}
    return int(told.get(name) or 0)


async def _partitions(admin: Admin, prefix: str) -> dict[str, int]:
    names = {topic.under(prefix) for topic in TOPICS}
    return {about["topic"]: len(about["partitions"]) for about in await admin.known(names)}


async def _create(
    admin: Admin,
    prefix: str,
    topics: list[Topic],
    partitions: int,
    replication_factor: int,
) -> None:
    if not topics:
        return
    async for attempt in AsyncRetrying(
        # A broker is away, and with it the place of a copy: it may be starting.
        retry=retry_if_exception_type(InvalidReplicationFactorError),
        wait=wait_fixed(0.5),
        stop=stop_after_delay(BROKERS_PATIENCE_S),
        reraise=True,
    ):
        with attempt:
            answer: Any = await admin.create_topics(
                [_new(topic, prefix, partitions, replication_factor) for topic in topics]
            )
            _check(answer.topic_errors, prefix)


def _check(told: Iterable[Sequence[Any]], prefix: str) -> None:
    for _, code, *_ in told:
        error = for_code(code)
        # Several processes start at once: that another was faster is fine.
        if code and error is not TopicAlreadyExistsError:
            raise error(f"while topics were created below {prefix!r}")


@retry(
    retry=retry_if_exception(lambda error: isinstance(error, KafkaError) and transient(error)),
    wait=wait_fixed(0.05),
    stop=stop_after_delay(30),
    reraise=True,
)
async def led(admin: Admin, names: Collection[str]) -> dict[str, int]:
    """Waits until every broker knows who leads them; returns each topic's partitions.

    A topic is announced before it can be used, and to one broker before another.
    """
    if not names:
        return {}
    answers = [_counts(topics) for topics in await admin.known_everywhere(names)]
    unled = {name for name in names if not all(name in counts for counts in answers)}
    if unled:
        raise LeaderNotAvailableError(", ".join(sorted(unled)))
    return answers[0]


def _counts(topics: list[dict[str, Any]]) -> dict[str, int]:
    """The partitions of those topics whose partitions are all led."""
    return {
        about["topic"]: len(about["partitions"])
        for about in topics
        if about["partitions"] and all(p["leader"] >= 0 for p in about["partitions"])
    }


def _new(topic: Topic, prefix: str, partitions: int, replication_factor: int) -> NewTopic:
    return NewTopic(
        topic.under(prefix),
        partitions,
        replication_factor,
        topic_configs=settings_of(topic, replication_factor),
    )


def settings_of(topic: Topic, replication_factor: int) -> dict[str, str]:
    """What the broker is told of a topic with so many copies."""
    kept = "delete.retention.ms" if topic.cleanup == "compact" else "retention.ms"
    settings = {
        "cleanup.policy": topic.cleanup,
        kept: str(topic.retention_ms),
        "max.message.bytes": str(topic.max_message_bytes),
    }
    if topic.min_compaction_lag_ms:
        settings["min.compaction.lag.ms"] = str(topic.min_compaction_lag_ms)
    if topic.max_compaction_lag_ms is not None:
        settings["max.compaction.lag.ms"] = str(topic.max_compaction_lag_ms)
    # Kafka deletes and compacts closed segments only: a day's worth, or an hour's, not a week's.
    settings["segment.ms"] = str(min(topic.retention_ms, DAY_MS))
    if replication_factor >= COPIES:
        # One may be away; with a single one left, what it takes could be lost with it.
        settings["min.insync.replicas"] = str(COPIES - 1)
    return settings


def _agree(counts: dict[str, int]) -> None:
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise Refused(
            f"The memory topics must have the same number of partitions, but {told}. "
            "Give them the same number (kafka-topics --alter --partitions)."
        )
