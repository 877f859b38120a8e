"""Which cluster this is: its id outlives addresses, and a cluster made anew has another."""

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.kafka.connection import KafkaConnection


async def cluster_id(connection: KafkaConnection) -> str:
    """The id that the cluster was formatted with. Raises Unavailable."""
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    except (KafkaError, OSError) as error:
        raise connection.named(error) from error
    finally:
        await admin.close()
