"""One process: some stages and desks, one connection, from start to a clean stop.

On a stop the batch in flight is finished and committed, the groups are left, then the producers close.
Whoever built the stages closes their stores and models after that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faststream.kafka import KafkaBroker

from pipeline.kafka.connection import KafkaConnection, started_producer, stopped_producer
from pipeline.kafka.dead_letters import HALTING_SHARE
from pipeline.kafka.delivery import StageDelivery
from pipeline.kafka.desk import DeskDelivery
from pipeline.kafka.security import faststream_security
from pipeline.kafka.telling import Telling
from pipeline.liveness import Liveness
from pipeline.stage import Desk, Stage

GRACE_S = 50.0
"""How long a stop waits for the batches in flight."""


async def serve(
    connection: KafkaConnection,
    prefix: str,
    work: Sequence[Stage | Desk],
    *,
    until: asyncio.Event,
    liveness: Liveness | None = None,
    on_ready: Callable[[], None] = lambda: None,
    halting_share: float = HALTING_SHARE,
) -> None:
    """Runs the stages and desks until `until` is set. The topics must be there.

    Raises Unavailable where Kafka does not answer at the start, Halted where most messages fail, and
    whatever a stage raised that is not a PipelineError.
    """
    async with AsyncExitStack() as stack:
        events = await started_producer(connection)
        stack.push_async_callback(stopped_producer, events)
        answers = await started_producer(connection, linger_ms=0)
        stack.push_async_callback(stopped_producer, answers)
        broker = _consuming(connection)
        liveness = liveness or Liveness()
        stages = [
            StageDelivery(w, events, prefix, until, liveness, halting_share=halting_share)
            for w in work
            if isinstance(w, Stage)
        ]
        desks = [
            DeskDelivery(w, answers, prefix, _telling(w, events, prefix, stack))
            for w in work
            if isinstance(w, Desk)
        ]
        for delivery in (*stages, *desks):
            delivery.subscribe(broker)
        stack.push_async_callback(broker.stop)
        try:
            await broker.start()
        except (KafkaError, OSError) as error:
            raise connection.named(error) from error
        for stage in stages:
            _watch(stage.consumer, stage.name, liveness, stage)
        for desk in desks:
            _watch(desk.consumer, desk.name, liveness)
        on_ready()
        stopped = asyncio.ensure_future(until.wait())
        failures = [stage.failure for stage in stages]
        await asyncio.wait([stopped, *failures], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        until.set()
    for failure in failures:
        if failure.done():
            failure.result()


def _telling(
    desk: Desk, producer: AIOKafkaProducer, prefix: str, stack: AsyncExitStack
) -> Telling | None:
    if desk.tells is None:
        return None
    telling = Telling(producer, desk.tells, prefix)
    stack.push_async_callback(telling.close)
    return telling


def _watch(
    consumer: Any, name: str, liveness: Liveness, stage: StageDelivery | None = None
) -> None:
    """Notes each poll: FastStream keeps its loop, and when it last asked for more, to itself."""
    for poll in ("getmany", "getone"):
        noted = _noting(getattr(consumer, poll), name, liveness)
        setattr(consumer, poll, _guarded(noted, stage) if stage else noted)


def _noting(poll: Callable[..., Awaitable[Any]], name: str, liveness: Liveness) -> Any:
    async def noted(*args: Any, **kwargs: Any) -> Any:
        with liveness.polling(name):
            return await poll(*args, **kwargs)

    return noted


def _guarded(poll: Callable[..., Awaitable[Any]], stage: StageDelivery) -> Any:
    """A poll that fails must not be followed by another: it took records along that nobody has seen."""
    begun = False

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal begun
        if not begun:
            # The polls before we watched may have failed so.
            await stage.begin()
            begun = True
        try:
            polled = await poll(*args, **kwargs)
        except (KafkaError, ConsumerStoppedError):
            raise
        except Exception as error:
            stage.halt_at_unreadable(error)
            raise
        if not polled:
            await stage.pass_markers()
        return polled

    return guarded


def _consuming(connection: KafkaConnection) -> KafkaBroker:
    return KafkaBroker(
        connection.bootstrap_servers.split(","),
        consumer_only=True,
        allow_auto_create_topics=False,
        security=faststream_security(connection),
        graceful_timeout=GRACE_S,
        apply_types=False,
        logger=_quiet_logger(),
    )


def _quiet_logger() -> logging.Logger:
    """FastStream's own log: its errors only, what matters of the rest is told in our words."""
    logger = logging.getLogger("pipeline.kafka.faststream")
    logger.setLevel(logging.ERROR)
    return logger
