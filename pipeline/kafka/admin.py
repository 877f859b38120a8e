"""Asking the cluster itself: which brokers, topics and groups there are, and making and trimming them.

Most questions any broker answers. One that has just died is among the known ones for some seconds, and
aiokafka asks it as gladly as another: so whoever answers is looked for first, and a cluster of three that
lost one of them is not told to be down.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from random import sample
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.protocol.metadata import MetadataRequest

from pipeline.kafka.connection import KafkaConnection


class Admin(AIOKafkaAdminClient):
    """aiokafka's, that asks a broker which is there.

    Like `sequences`, this reaches into aiokafka, whose version is held for it.
    """

    async def _send_request(self, request: Any, node_id: int | None = None) -> Any:
        own: Any = self
        if node_id is None:
            node_id = await _ready_one(own._client)
        return await own._client.send(node_id, request)

    async def known(self, names: Collection[str]) -> list[dict[str, Any]]:
        """What one broker says of those of these topics that it knows.

        All in one answer: the next broker may not have heard of them yet.
        """
        return [about for about in await self.describe_topics() if about["topic"] in names]

    async def known_everywhere(self, names: Collection[str]) -> list[list[dict[str, Any]]]:
        """`known`, of every broker that is there. Raises NodeNotReadyError where none is."""
        own: Any = self
        brokers = _brokers(own._client)
        answers: list[Any] = [
            (await self._send_request(MetadataRequest(None), node_id)).to_object()["topics"]
            for node_id in brokers
            if await own._client.ready(node_id)
        ]
        if not answers:
            raise _none_of(brokers)
        return [[about for about in topics if about["topic"] in names] for topics in answers]


async def _ready_one(client: Any) -> int:
    brokers = _brokers(client)
    for node_id in sample(brokers, len(brokers)):
        if await client.ready(node_id):
            return node_id
    raise _none_of(brokers)


def _brokers(client: Any) -> list[int]:
    return sorted(broker.nodeId for broker in client.cluster.brokers())


def _none_of(brokers: list[int]) -> NodeNotReadyError:
    return NodeNotReadyError(f"None of the brokers {brokers} is there.")


@asynccontextmanager
async def asked(connection: KafkaConnection) -> AsyncGenerator[Admin]:
    """The cluster, to be asked and told. What goes wrong within is Unavailable, or Refused."""
    admin = Admin(**connection.options())
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await admin.close()
