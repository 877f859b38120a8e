"""A TCP proxy between the stages and one server: it passes on, stalls, or cuts everything off."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from pipeline.embedded.ports import HOST

_CHUNK_BYTES = 256 * 1024


class Proxy:
    """Listens on `port`, speaks to `target`. Stalling keeps connections open and moves nothing."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.moved_bytes = 0
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._open) // 2

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator["Proxy"]:
        server = await asyncio.start_server(self._accept, HOST, self.port, limit=_CHUNK_BYTES)
        try:
            yield self
        finally:
            server.close()
            self._abort()
            self._flows.set()

    @asynccontextmanager
    async def stalled(self) -> AsyncGenerator[None]:
        """For the time of the block nothing goes through, and nobody is told."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @asynccontextmanager
    async def cut_off(self) -> AsyncGenerator[None]:
        """All connections are reset, and for the time of the block new ones are, too."""
        self._refuses = True
        self._abort()
        try:
            yield
        finally:
            self._refuses = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = None
        if not self._refuses:
            with suppress(OSError):
                there = await asyncio.open_connection(HOST, self._target, limit=_CHUNK_BYTES)
        if there is None:
            writer.transport.abort()
            return
        writers = {writer, there[1]}
        self._open |= writers
        if self._refuses:  # since it was being connected
            self._abort()
        pumps = [
            asyncio.create_task(self._pump(reader, there[1])),
            asyncio.create_task(self._pump(there[0], writer)),
        ]
        try:
            # Whichever side ends first ends both.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._open -= writers
            for one in writers:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
                self.moved_bytes += len(data)
            # What was written must arrive before the connection is closed.
            writer.write_eof()
            await writer.drain()

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
