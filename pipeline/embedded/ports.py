"""Ports on this machine: free ones, the same as last time where possible."""

import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path

from pipeline.embedded.state import write_private
from pipeline.errors import Refused, Unavailable

HOST = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections: a part that is down for
# a moment finds its port free when it comes back, and its clients do not connect to themselves.
_RANGE = range(20_000, 32_000)


def keep_ports(file: Path, names: list[str], given: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: the given one, else the one kept in `file`, else a free one.

    Raises Refused where a given port cannot be had.
    """
    kept = _kept(file)
    chosen: dict[str, int] = {}
    for name in names:
        taken = set(chosen.values())
        chosen[name] = (
            _granted(name, given[name]) if name in given else _choose(kept.get(name), taken)
        )
    write_private(file, json.dumps({**kept, **chosen}))
    return chosen


def refusal(port: int) -> str:
    """Why no server can listen here; "" if one can. Connections that just ended do not matter."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            return str(error)
    return ""


def _granted(name: str, port: int) -> int:
    if why := refusal(port):
        raise Refused(f"{name} cannot have the given port {port}: {why}. Give another, or none.")
    return port


def is_open(port: int) -> bool:
    """Whether somebody listens here."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _choose(kept: int | None, taken: set[int]) -> int:
    guesses = random.sample(_RANGE, 100)
    for port in [kept, *guesses] if kept else guesses:
        if port not in taken and not refusal(port):
            return port
    raise Unavailable(f"No free port between {_RANGE.start} and {_RANGE.stop}.")


def _kept(file: Path) -> dict[str, int]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
