"""Which cluster this is: its id outlives addresses, and a cluster made anew has another."""

from pipeline.kafka.admin import asked
from pipeline.kafka.connection import KafkaConnection


async def cluster_id(connection: KafkaConnection) -> str:
    """The id that the cluster was formatted with. Raises Unavailable."""
    async with asked(connection) as admin:
        return str((await admin.describe_cluster())["cluster_id"])
