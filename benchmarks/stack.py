"""A stack of a benchmark's own, that leaves nothing behind."""

import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from pipeline.app import stage_processes
from pipeline.embedded import Plan, Stack, running
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import topic_ranges
from pipeline.settings import Settings
from schemas.topics import Topic


def own_stack(folder: Path) -> AbstractAsyncContextManager[Stack]:
    """The whole stream on this machine, for the time of a block."""
    plan = Plan(data=folder, stages=lambda stack: stage_processes(Settings(), stack))
    return running(plan, on_progress=lambda said: tell(f"{said.part} {said.phase} {said.detail}"))


async def events_in(kafka: KafkaConnection, topic: Topic) -> int:
    """How many records a topic has got, ends of transactions among them."""
    name = topic.under(Settings().topic_prefix)
    return sum((await topic_ranges(kafka, [name]))[name].end.values())


def tell(text: str) -> None:
    print(text, file=sys.stderr)
