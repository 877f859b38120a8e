"""What `verify` and `rebuild` need open: the record, what the index holds, and a fresh index beside it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast

import structlog

from pipeline.app.index import fresh_index
from pipeline.app.neighbours import Addresses
from pipeline.app.ports import open_ports
from pipeline.settings import Settings

if TYPE_CHECKING:
    # They speak in arrays; the command line starts without numpy.
    from pipeline.ports import Embedder, Fingerprints, MemoryRecords
    from pipeline.verifying.filling import Embed, Filling, Understand
    from pipeline.verifying.replacing import Fresh


KEPT_BYTES = 64 * 1024 * 1024
"""Of vectors that a rebuild keeps, as what was said beside a memory was one itself a moment ago."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_for_comparing(
    settings: Settings, where: Addresses
) -> AsyncGenerator[tuple["MemoryRecords", "Fingerprints"]]:
    """The record, and what the index holds: asked of the operator desk, or opened where none runs.

    Raises Refused, Unavailable.
    """
    from pipeline.kafka.asking import Asking
    from pipeline.kafka.lag import group_members
    from pipeline.kafka.records import group_of
    from pipeline.verifying.asking import IndexOverKafka

    desk = group_of(settings.topic_prefix, "operator_desk")
    answers = (await group_members(where.kafka, [desk])).get(desk)
    wanted = ["records"] if answers else ["records", "vectors"]
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(open_ports(settings, where, wanted))
        if not answers:
            yield ports["records"], ports["vectors"]
            return
        asking = Asking(where.kafka, settings.topic_prefix)
        stack.push_async_callback(asking.close)
        yield ports["records"], IndexOverKafka(asking)


@asynccontextmanager
async def open_for_rebuilding(
    settings: Settings, where: Addresses, say: Callable[[str], None] = log.info
) -> AsyncGenerator[tuple["Fresh", "Filling", "MemoryRecords"]]:
    """A fresh index beside the one in use, what fills it, and the record. Raises Refused, Unavailable.

    The fresh index is removed at the end unless it was put in the place of the old one.
    """
    from consumers import classifier, embedder
    from pipeline.kafka.lag import group_members
    from pipeline.kafka.records import group_of
    from pipeline.stores.caches import HotCache
    from pipeline.verifying.filling import Filling
    from schemas.topics import ENRICHED

    prefix = settings.topic_prefix
    users = ("vector_writer", "query", "operator_desk")
    running = await group_members(where.kafka, [group_of(prefix, name) for name in users])
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(
            open_ports(settings, where, ["classifier", "embedder", "records"], say)
        )
        model: Embedder = ports["embedder"]
        fresh = await fresh_index(stack, settings, where, ports, sum(running.values()))
        yield (
            fresh,
            Filling(
                fresh=fresh.index,
                model=model.model,
                connection=where.kafka,
                topic=ENRICHED.under(prefix),
                understand=cast("Understand", classifier.stage(ports["classifier"]).react),
                embed=cast("Embed", embedder.stage(model, HotCache(KEPT_BYTES)).react),
            ),
            ports["records"],
        )
