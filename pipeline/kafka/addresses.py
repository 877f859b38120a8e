"""What an address of a cluster looks like: told before anything tries to connect to it."""

import re

FORM = "host:port[,host:port], as in localhost:9092"

_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s,:/\[\]]+):(\d{1,5})")


def bootstrap_servers(given: object) -> str:
    """The address unchanged. Raises ValueError with the form that it must have.

    What was given is not repeated: a URL in the wrong place may hold a password.
    """
    servers = given.split(",") if isinstance(given, str) else []
    if not servers or not all(_is_server(server.strip()) for server in servers):
        raise ValueError(f"is no address of a Kafka: write {FORM}")
    assert isinstance(given, str)
    return given


def _is_server(written: str) -> bool:
    found = _SERVER.fullmatch(written)
    return found is not None and 0 < int(found[1]) < 65_536
