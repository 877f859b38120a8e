"""What Qdrant's client raises -> what to do about it."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from pipeline.errors import PipelineError, Refused, Unavailable, Unusable


@contextmanager
def remedies(address: str, collection: str) -> Generator[None, None, None]:
    """Names an error by what to do about it. Nothing of the address but host and port gets into the message."""
    try:
        yield
    except Exception as error:
        remedy = _remedy(error, address, collection)
        if remedy is None:
            raise
        raise remedy from error


def _remedy(error: Exception, address: str, collection: str) -> PipelineError | None:
    """What to do about an error of the client; None where it is a bug."""
    match error:
        case ResponseHandlingException() if not isinstance(error.source, ValueError):
            return _unavailable(address, type(error.source).__name__)
        case ResourceExhaustedResponse():
            return _unavailable(address, "too many requests")
        case UnexpectedResponse():
            return _by_status(error.status_code or 500, str(error), address, collection)
        case grpc.aio.AioRpcError():
            status = _HTTP_STATUS.get(error.code(), 503)
            return _by_status(status, error.details() or error.code().name, address, collection)
        case _:
            return None


def _by_status(status: int, said: str, address: str, collection: str) -> PipelineError:
    if status in {401, 403}:
        return Refused(f"Qdrant at {address} lets us not in: check QDRANT_API_KEY and its rights.")
    if status == 404:
        return Unavailable(
            f"Qdrant at {address} has no collection {collection!r} any more: start again to make it, "
            "then fill it from memory.enriched."
        )
    if status in {408, 429} or status >= 500:
        return _unavailable(address, said)
    return Unusable(f"Qdrant at {address} does not take this: {said}")


def _unavailable(address: str, reason: str) -> Unavailable:
    return Unavailable(f"Qdrant at {address} does not answer ({reason}): is it running?")


_HTTP_STATUS: Mapping[Any, int] = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
}
"""Of gRPC's codes that are not about a server in trouble."""
