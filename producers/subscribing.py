"""memory.enriched -> an application: each memory as it is learnt, and never an older state of it again."""

from collections.abc import AsyncGenerator

from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.following import following, records
from pipeline.kafka.reading import enriched_of
from producers.seen import Passed, Seen
from schemas.events import Enriched, MemoryEnriched
from schemas.topics import ENRICHED


async def learnt(
    connection: KafkaConnection,
    prefix: str,
    seen: Seen,
    *,
    user_id: str | None,
    group_id: str | None,
    from_beginning: bool,
    forgotten: bool,
) -> AsyncGenerator[Enriched]:
    """What is learnt of one user, or with None of all; `seen` is told of it.

    What was `forgotten` only where that is wanted.
    """
    topic, passed = ENRICHED.under(prefix), Passed()
    # Of what was learnt long ago the last enrichment may be the only one that Kafka still has.
    from_now_on = group_id is None and not from_beginning
    async with following(
        connection, topic, group_id=group_id, from_beginning=from_beginning
    ) as consumer:
        async for record in records(consumer, commit=group_id is not None):
            event = enriched_of(record)
            if event is None or (user_id is not None and event.user_id != user_id):
                continue
            if not passed.is_news(event):
                continue
            if isinstance(event, MemoryEnriched):
                seen.add(event.user_id, event.memory_id, event.version)
                if event.context and from_now_on:
                    continue
            if forgotten or isinstance(event, MemoryEnriched):
                yield event
