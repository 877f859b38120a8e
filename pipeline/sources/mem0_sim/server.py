"""The stand-in behind HTTP: an ASGI application, and a server of it for the time of a block."""

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from pipeline.sources.mem0_sim.faults import Faults
from pipeline.sources.mem0_sim.memories import Memories
from pipeline.sources.mem0_sim.routes import Project, Request, answer

_HOST = "127.0.0.1"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Mem0Sim:
    """The platform, as one project of it sees it."""

    project: Project
    faults: Faults
    chance: random.Random
    replica_lags_s: tuple[float, ...] = (0.0,)
    """How far each replica is behind; one of them, drawn anew, reads for each request."""
    latency_s: float = 0.0
    requests: int = field(default=0)

    @property
    def memories(self) -> Memories:
        return self.project.memories

    def respond(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        self.requests += 1
        fault = self.faults.draw()
        if fault is not None:
            return fault.status, dict(fault.headers), fault.body
        told = answer(self.project, request)
        headers = {"content-type": "application/json", **told.headers}
        return told.status, headers, json.dumps(told.body).encode()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """ASGI."""
        body = await _body(receive)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        request = Request(
            method=scope["method"],
            path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            headers={k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]},
            body=body,
            lag_s=self.chance.choice(self.replica_lags_s),
        )
        status, headers, answered = self.respond(request)
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": answered})


def stand_in(
    *,
    seed: int = 0,
    faults: float = 0.0,
    replica_lag_s: float = 0.0,
    oddities: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> Mem0Sim:
    """A platform without memories. The same seed draws the same ids, faults and replicas."""
    memories = Memories(clock=clock, chance=random.Random(seed), oddities=oddities)  # noqa: S311
    lags = (0.0, replica_lag_s / 2, replica_lag_s) if replica_lag_s else (0.0,)
    return Mem0Sim(
        Project(memories),
        Faults(random.Random(seed + 1), faults, clock=clock),  # noqa: S311
        random.Random(seed + 2),  # noqa: S311
        lags,
    )


@asynccontextmanager
async def serving(sim: Mem0Sim, *, port: int = 0) -> AsyncGenerator[str]:
    """Serves for the time of the block; yields the address. Raises OSError where the port is taken."""
    listening = socket.create_server((_HOST, port))
    config = uvicorn.Config(sim, log_config=None, lifespan="off", timeout_graceful_shutdown=2)
    server = _Unsignalled(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://{_HOST}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


class _Unsignalled(uvicorn.Server):
    """Leaves the signals to the process."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
