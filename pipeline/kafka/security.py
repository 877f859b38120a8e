"""The same sign-in, as FastStream words it."""

from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from pipeline.kafka.connection import KafkaConnection


def faststream_security(connection: KafkaConnection) -> BaseSecurity | None:
    """FastStream's security object for a connection; None where it is open."""
    encrypted, context = connection.encrypted, connection.ssl_context()
    if not connection.security_protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=encrypted) if encrypted else None
    kind = {
        "PLAIN": SASLPlaintext,
        "SCRAM-SHA-256": SASLScram256,
        "SCRAM-SHA-512": SASLScram512,
    }[connection.sasl_mechanism]
    return kind(
        username=connection.username or "",
        password=connection.password or "",
        ssl_context=context,
        use_ssl=encrypted,
    )
