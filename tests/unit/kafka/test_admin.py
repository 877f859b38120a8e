"""What any broker answers is asked of one that is there."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError

from pipeline.errors import Unavailable
from pipeline.kafka.admin import Admin, asked
from pipeline.kafka.connection import KafkaConnection

KAFKA = KafkaConnection("nowhere:1")


class Brokers:
    """Three are known; those in `there` answer. In the place of aiokafka's own client."""

    def __init__(self, *there: int) -> None:
        self._there = there
        self.cluster = SimpleNamespace(
            brokers=lambda: [SimpleNamespace(nodeId=n) for n in (1, 2, 3)]
        )

    async def bootstrap(self) -> None: ...

    async def close(self) -> None: ...

    async def ready(self, node_id: int) -> bool:
        return node_id in self._there

    async def send(self, node_id: int, _: object) -> str:
        if node_id not in self._there:
            raise NodeNotReadyError
        return f"from {node_id}"


async def ask(admin: Any, node_id: int | None = None) -> str:
    return await admin._send_request("a question", node_id)


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    def connected(self: Any, **_: object) -> None:
        self._client, self._started, self._closed = Brokers(*request.param), False, False

    monkeypatch.setattr(Admin, "__init__", connected)


@pytest.mark.parametrize("brokers", [(3,)], indirect=True, ids=["one of three"])
@pytest.mark.usefixtures("brokers")
async def test_a_broker_that_is_away_is_not_asked() -> None:
    async with asked(KAFKA) as admin:
        # By chance alone the right one is found 20 times in a row once in three billion.
        assert {await ask(admin) for _ in range(20)} == {"from 3"}


@pytest.mark.parametrize("brokers", [(3,)], indirect=True, ids=["one of three"])
@pytest.mark.usefixtures("brokers")
async def test_who_must_answer_is_asked_though_it_is_away() -> None:
    async with asked(KAFKA) as admin:
        with pytest.raises(NodeNotReadyError):
            await ask(admin, 1)


@pytest.mark.parametrize("brokers", [()], indirect=True, ids=["none of three"])
@pytest.mark.usefixtures("brokers")
async def test_where_no_broker_is_there_kafka_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="KAFKA_BOOTSTRAP_SERVERS"):
        await ask_anyone()


async def ask_anyone() -> None:
    async with asked(KAFKA) as admin:
        await ask(admin)


@pytest.mark.parametrize("brokers", [()], indirect=True, ids=["none of three"])
@pytest.mark.usefixtures("brokers")
async def test_what_every_broker_knows_is_told_by_one_at_least() -> None:
    with pytest.raises(Unavailable, match=r"None of the brokers \[1, 2, 3\]"):
        await ask_all()


async def ask_all() -> None:
    async with asked(KAFKA) as admin:
        await admin.known_everywhere(["made"])
