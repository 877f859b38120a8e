import socket
from pathlib import Path

import pytest

from pipeline.embedded.ports import HOST, keep_ports
from pipeline.errors import Refused

NAMES = ["kafka", "postgres", "valkey"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ports.json"


def test_ports_are_the_same_next_time(file: Path) -> None:
    assert keep_ports(file, NAMES, {}) == keep_ports(file, NAMES, {})


def test_no_two_parts_share_a_port(file: Path) -> None:
    assert len(set(keep_ports(file, NAMES, {}).values())) == len(NAMES)


def test_ports_lie_below_those_of_outgoing_connections(file: Path) -> None:
    assert all(20_000 <= port < 32_000 for port in keep_ports(file, NAMES, {}).values())


def test_a_given_port_is_taken_and_kept(file: Path) -> None:
    free = keep_ports(file.with_name("other.json"), ["any"], {})["any"]

    assert keep_ports(file, NAMES, {"postgres": free})["postgres"] == free
    assert keep_ports(file, NAMES, {})["postgres"] == free


def test_a_kept_port_that_is_taken_meanwhile_is_replaced(file: Path) -> None:
    before = keep_ports(file, NAMES, {})
    with listening(before["kafka"]):
        after = keep_ports(file, NAMES, {})

    assert after["kafka"] != before["kafka"]
    assert after["postgres"] == before["postgres"]


def test_a_given_port_that_is_taken_is_refused(file: Path) -> None:
    taken = keep_ports(file, ["kafka"], {})["kafka"]
    with listening(taken), pytest.raises(Refused, match=f"given port {taken}"):
        keep_ports(file, ["kafka"], {"kafka": taken})


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_does_not_exist_is_refused(file: Path, port: int) -> None:
    with pytest.raises(Refused, match="kafka cannot have"):
        keep_ports(file, ["kafka"], {"kafka": port})


def test_an_unreadable_file_is_written_anew(file: Path) -> None:
    file.write_text("{")

    assert keep_ports(file, NAMES, {}) == keep_ports(file, NAMES, {})


def listening(port: int) -> socket.socket:
    return socket.create_server((HOST, port))
