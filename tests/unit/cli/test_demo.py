"""The demo keeps away from what is somebody's own."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import demo
from pipeline.embedded import Stack
from pipeline.settings import Settings
from tests.unit.cli.conftest import Command

USERS = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "POSTGRES_DSN": "postgresql://u:p@h/d",
    "QDRANT_URL": "http://h:6333",
    "REDIS_URL": "redis://h:6379",
}


@pytest.fixture
def shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Settings]]:
    """The data and the settings that the demo is shown on; a user's are set."""
    given: list[tuple[Path, Settings]] = []

    async def show(_: Any, data: Path, __: Path, settings: Settings) -> Stack:
        given.append((data, settings))
        return Stack(data, 1, 0.0, "k:1", "", "", data)

    for name, value in USERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HYBRID_MEMORY_DATA", str(home / "mine"))
    monkeypatch.setattr(demo, "_demo", show)
    return given


def test_the_demo_has_data_and_servers_of_its_own(
    command: Command, shown: list[tuple[Path, Settings]], home: Path
):
    result = command("demo", "--no-mem0")
    assert result.exit_code == 0, result.output
    ((data, settings),) = shown
    assert data == home / "home" / "data-demo"
    assert settings.kafka("k:1").security_protocol == "PLAINTEXT"
    named = (settings.kafka_bootstrap_servers, settings.postgres_dsn, settings.redis_url)
    assert not any(named)
    assert settings.qdrant_url is None
    assert f'search "Which courier do we use?" --user amara --data {data}' in result.stdout


def test_the_demo_goes_where_it_is_sent(
    command: Command, shown: list[tuple[Path, Settings]], home: Path
):
    assert command("demo", "--no-mem0", "--data", str(home / "there")).exit_code == 0
    ((data, settings),) = shown
    assert data == home / "there"
    assert settings.qdrant_url == USERS["QDRANT_URL"]
