"""GET /live and /ready of a stage process, for whoever restarts it.

/live   503 when a subscription has not polled for longer than a batch may take
/ready  503 until the first poll, and then as /live
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from pipeline.liveness import Liveness

Send = Callable[[dict[str, Any]], Awaitable[None]]


@asynccontextmanager
async def answering(liveness: Liveness, *, host: str, port: int) -> AsyncGenerator[None]:
    """Serves the two pages for the time of the block. Raises OSError where the port is taken."""

    async def app(scope: dict[str, Any], _: Any, send: Send) -> None:
        good = {"/live": liveness.alive, "/ready": liveness.ready}.get(scope["path"])
        status = 404 if good is None else 200 if good else 503
        body = json.dumps({"ok": bool(good), "poll_age_s": liveness.poll_age_s()}).encode()
        headers = [(b"content-type", b"application/json")]
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


class _Unsignalled(uvicorn.Server):
    """Leaves the signals to the process: they finish the batch in flight first."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
