"""How to reach a cluster, and how everything that is published is published.

Producers are idempotent and wait for all in-sync replicas: an acknowledged event survives a broker, and
a retried one is not there twice nor out of order.
"""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnknownError,
)

from pipeline.errors import PipelineError, Refused, Unavailable
from pipeline.kafka.batches import read_all_batches
from pipeline.kafka.sequences import publish_past_what_is_refused

# Whoever reads or publishes knows a connection.
read_all_batches()
publish_past_what_is_refused()

MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_POLL_INTERVAL_MS = 300_000
PUBLISH_PATIENCE_S = 60.0
"""How long an acknowledgement is waited for. An idempotent producer itself would wait for ever."""
STOP_PATIENCE_S = 10.0

PUBLISHING: dict[str, Any] = {
    "acks": "all",
    "enable_idempotence": True,
    "linger_ms": 5,
    "max_batch_size": 262_144,
    "max_request_size": MAX_REQUEST_BYTES,
    "compression_type": "zstd",
}

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True)
class KafkaConnection:
    """A cluster's address and how to sign in. The password stays out of `repr`."""

    bootstrap_servers: str
    """host:port, several separated by commas."""
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @property
    def encrypted(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    def ssl_context(self) -> ssl.SSLContext | None:
        """The system's authorities, or those of `ca_file`."""
        return ssl.create_default_context(cafile=self.ca_file) if self.encrypted else None

    def options(self) -> dict[str, Any]:
        """Keyword arguments of any aiokafka client."""
        signed_in: dict[str, Any] = {}
        if self.security_protocol.startswith("SASL"):
            signed_in = {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
            **signed_in,
        }

    def named(self, error: Exception) -> PipelineError:
        """What to tell when the cluster does not do what it was asked."""
        if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            return Refused(
                f"It is larger than Kafka at {self.bootstrap_servers} takes (max.message.bytes). Keep "
                "large content elsewhere and remember where it is."
            )
        if isinstance(error, _NOT_LET_IN):
            return Refused(
                f"Kafka at {self.bootstrap_servers} does not let us do it ({error}): check "
                "KAFKA_SECURITY_PROTOCOL, KAFKA_USERNAME, KAFKA_PASSWORD and the user's ACLs."
            )
        if isinstance(error, KafkaError) and not transient(error):
            return Refused(f"Kafka at {self.bootstrap_servers} refuses: {error!r}")
        # What aiokafka says of a connection it does not get is a list of sockets.
        why = "no connection" if isinstance(error, KafkaConnectionError) else str(error)
        return Unavailable(
            f"Kafka at {self.bootstrap_servers} does not answer ({why}). "
            "Is it running? `hybrid-memory up` starts one here, "
            "KAFKA_BOOTSTRAP_SERVERS points at another."
        )


_NOT_LET_IN = (
    AuthenticationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
    ClusterAuthorizationFailedError,
)


async def started_producer(connection: KafkaConnection, **overrides: Any) -> AIOKafkaProducer:
    """A producer that is ready to publish. Raises Unavailable."""
    producer = AIOKafkaProducer(**connection.options(), **{**PUBLISHING, **overrides})
    try:
        await producer.start()
    except (KafkaError, OSError) as error:
        await stopped_producer(producer)
        # Of a connection that it does not get aiokafka knows no more than we say.
        cause = None if isinstance(error, KafkaConnectionError) else error
        raise connection.named(error) from cause
    except BaseException:
        # Whoever would wait no longer: what is half open would stay so.
        await stopped_producer(producer)
        raise
    return producer


async def stopped_producer(producer: AIOKafkaProducer) -> None:
    """Flushes and stops; gives up after a while, for an idempotent producer waits for Kafka for ever."""
    with suppress(TimeoutError):
        await asyncio.wait_for(producer.stop(), STOP_PATIENCE_S)


def transient(error: KafkaError) -> bool:
    """Whether the same request may fare better later."""
    # A broker that knows no name for its trouble, a full disk say, answers with UnknownError.
    return error.retriable or isinstance(error, KafkaTimeoutError | UnknownError)
