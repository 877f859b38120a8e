"""Where everything is, as a command sees it: the settings first, then the stack that runs here."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.cli.interrupting import interruptible
from pipeline.cli.printing import tell
from pipeline.errors import Refused

if TYPE_CHECKING:
    from pydantic_settings import SettingsError

    from pipeline.app import Addresses
    from pipeline.embedded.state import Stack
    from pipeline.kafka.connection import KafkaConnection
    from pipeline.settings import Settings
    from producers.client import MemoryClient

Result = TypeVar("Result")
_A_SETTING = "A setting (environment, .env or hybrid-memory.yaml)"


@dataclass(frozen=True)
class Located:
    """What a command works with. `stack` is None where none runs here."""

    settings: "Settings"
    stack: "Stack | None"
    addresses: "Addresses"

    @property
    def kafka(self) -> "KafkaConnection":
        return self.addresses.kafka

    @property
    def prefix(self) -> str:
        return self.settings.topic_prefix


def read_settings() -> "Settings":
    """The settings. Raises Refused where one cannot be right, by the name of its variable."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from pipeline.domain.telling import told
    from pipeline.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        raise Refused(f"{_A_SETTING}: {told(error)}") from error
    except SettingsError as error:
        raise Refused(f"{_A_SETTING}: {_unread(error)}") from error
    _tell_mistyped()
    return settings


def _unread(error: "SettingsError") -> str:
    """What is wrong with a setting of several values. The library names the field, and why beneath."""
    named, why = re.search(r'field "(\w+)"', str(error)), error.__cause__
    if named is None or not isinstance(why, json.JSONDecodeError):
        return f"{error}: {why}"
    return (
        f"{named[1]}: is no JSON from character {why.pos + 1} on. Write names in double quotes, and "
        'their values, as in {"name": 0.5}'
    )


@cache
def _tell_mistyped() -> None:
    """Once: a command reads the settings several times."""
    from pipeline.settings import mistyped

    for name, ours in mistyped().items():
        tell(f".env: {name} is no setting of ours. Do you mean {ours}?", style="yellow")


def located(data: Path | None) -> Located:
    """The addresses of all parts. Raises Refused where there is no Kafka to go to."""
    from pipeline.app import addresses
    from pipeline.embedded.state import discover

    settings = read_settings()
    stack = discover(data)
    if data is not None and stack is None:
        raise Refused(f"No stack runs on {data}. `hybrid-memory up --data {data}` starts one.")
    return Located(settings, stack, addresses(settings, stack))


@asynccontextmanager
async def connected(data: Path | None) -> "AsyncGenerator[MemoryClient]":
    """A client of the stack that runs here, or of the Kafka that the settings name."""
    here = located(data)
    quiet()
    async with client_of(here.kafka, here.prefix) as client:
        yield client


def client_of(kafka: "KafkaConnection", prefix: str) -> "MemoryClient":
    """A client, not yet connected."""
    from producers.client import MemoryClient

    return MemoryClient(kafka, prefix=prefix)


def quiet() -> None:
    """A command tells its errors itself: what the libraries say about them would be said twice."""
    from pipeline.cli import logs

    logs.configure("error", libraries="critical")


def running(command: Coroutine[Any, Any, Result]) -> Result:
    """Runs a command to its end. Ctrl-C closes what it opened, then ends it; a second one ends it at once."""
    with interruptible() as hear:

        async def heard() -> Result:
            hear()
            return await command

        return asyncio.run(heard())
