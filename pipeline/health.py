"""GET /live, /ready and /metrics of a stage process, for whoever restarts and watches it.

/live     503 when a subscription has not polled for longer than a batch may take: start it again
/ready    503 unless it is ready; its body says why not: a neighbour is down, most messages fail
/metrics  counts and times, as Prometheus reads them
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline.liveness import Liveness

Send = Callable[[dict[str, Any]], Awaitable[None]]


@asynccontextmanager
async def answering(liveness: Liveness, *, host: str, port: int) -> AsyncGenerator[None]:
    """Serves the two pages for the time of the block. Raises OSError where the port is taken."""

    async def app(scope: dict[str, Any], _: Any, send: Send) -> None:
        status, kind, body = _page(scope["path"], liveness)
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    listening = socket.create_server((host, port))
    server = _Unsignalled(uvicorn.Config(app, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _page(path: str, liveness: Liveness) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest()
    good = {"/live": liveness.alive, "/ready": liveness.state == "ready"}.get(path)
    told = {
        "ok": bool(good),
        "state": liveness.state,
        "troubles": liveness.troubles,
        "poll_age_s": liveness.poll_age_s(),
    }
    status = 404 if good is None else 200 if good else 503
    return status, "application/json", json.dumps(told).encode()


class _Unsignalled(uvicorn.Server):
    """Leaves the signals to the process: they finish the batch in flight first."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
