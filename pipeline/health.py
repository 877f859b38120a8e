"""GET /live, /ready and /metrics of a stage process, for whoever restarts and watches it; hints, by POST.

/live     503 when a subscription has not polled for longer than a batch may take: start it again
/ready    503 unless it is ready; its body says why not: a neighbour is down, most messages fail
/metrics  counts and times, as Prometheus reads them

A hint says that there may be something to do, and nothing else: its body is neither believed nor kept.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline.liveness import Liveness

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Page = tuple[int, str, bytes]

MOST_BYTES = 64 * 1024
"""Of a hint."""
HINT_S = 5.0
"""How long a hint may take to come in."""


@asynccontextmanager
async def answering(
    liveness: Liveness,
    *,
    host: str,
    port: int,
    hints: Mapping[str, Callable[[], None]] | None = None,
) -> AsyncGenerator[None]:
    """Serves the pages for the time of the block, and takes `hints`, by path.

    Raises OSError where the port is taken.
    """
    hints = hints or {}

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        hint = hints.get(scope["path"].rstrip("/"))
        answered = await _hinted(hint, scope, receive) if hint else _page(scope["path"], liveness)
        status, kind, body = answered
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


async def _hinted(hint: Callable[[], None], scope: Mapping[str, Any], receive: Receive) -> Page:
    if scope["method"] != "POST":
        return _told(405, "this takes a POST")
    try:
        async with asyncio.timeout(HINT_S):
            if not await _is_small(receive):
                return _told(413, f"more than {MOST_BYTES} bytes")
    except TimeoutError:
        return _told(408, f"it did not come in within {HINT_S:g} s")
    hint()
    return _told(202, "accepted")


async def _is_small(receive: Receive) -> bool:
    """Reads a body and keeps none of it."""
    left = MOST_BYTES
    while left >= 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            break
    return left >= 0


def _told(status: int, detail: str) -> Page:
    return status, "application/json", json.dumps({"detail": detail}).encode()


def _page(path: str, liveness: Liveness) -> Page:
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
