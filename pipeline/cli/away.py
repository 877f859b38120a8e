"""Tells whoever waits for news that none can come, because Kafka is away; and when it is back.

A consumer keeps silent about it: it connects again by itself, and goes on where it was.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pipeline.cli.printing import tell
from pipeline.ending import cancelled

if TYPE_CHECKING:
    from pipeline.kafka.connection import KafkaConnection

LOOK_EVERY_S = 2.0
PATIENCE_S = 2.0


@asynccontextmanager
async def telling_when_away(kafka: "KafkaConnection") -> AsyncGenerator[None]:
    """Looks now and then, while the block lasts, whether any of the brokers can be reached."""
    looking = asyncio.create_task(_look(kafka.bootstrap_servers))
    try:
        yield
    finally:
        await cancelled(looking)


async def _look(servers: str) -> None:
    away = False
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        was_away, away = away, not await _any_answers(servers)
        if away and not was_away:
            tell(
                f"Kafka at {servers} cannot be reached. This goes on when it is back; Ctrl-C ends it.",
                style="yellow",
            )
        if was_away and not away:
            tell("Kafka is back.", style="dim")


async def _any_answers(servers: str) -> bool:
    return any(await asyncio.gather(*map(_answers, servers.split(","))))


async def _answers(server: str) -> bool:
    host, _, port = server.strip().rpartition(":")
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
