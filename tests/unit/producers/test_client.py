"""What the client refuses before it asks anybody, and once it was closed."""

from typing import Any

import pytest

from pipeline.errors import Refused
from pipeline.kafka.connection import KafkaConnection
from producers import client as module
from producers.client import MemoryClient
from schemas.topics import EVENTS
from tests.builders import captured


class Kafka:
    """A producer's cluster with our topics, which takes whatever comes."""

    def __init__(self) -> None:
        self.client = self
        self.connections = 1

    async def fetch_all_metadata(self) -> Any:
        return self

    def topics(self) -> set[str]:
        return {EVENTS.under("memory")}

    async def stop(self) -> None:
        self.connections -= 1


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()

    async def started(_: KafkaConnection) -> Any:
        return kafka

    monkeypatch.setattr(module, "started_producer", started)
    return kafka


@pytest.mark.parametrize("address", ["localhost:abc", "", None, ["localhost:9092"]])
def test_an_address_that_cannot_be_one_is_refused_at_once(address: Any) -> None:
    with pytest.raises(Refused, match=r"host:port\[,host:port\]"):
        MemoryClient(address)


def test_the_address_of_a_connection_is_looked_at_too() -> None:
    with pytest.raises(Refused, match="host:port"):
        MemoryClient(KafkaConnection("localhost"))


async def test_a_client_is_entered_once(kafka: Kafka) -> None:
    client = MemoryClient()
    async with client:
        with pytest.raises(Refused, match="make another"):
            await client.__aenter__()
    with pytest.raises(Refused, match="make another"):
        await client.__aenter__()
    assert kafka.connections == 0


async def test_a_client_that_could_not_connect_may_try_again(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MemoryClient(prefix="elsewhere")
    monkeypatch.setattr(module, "TOPICS_PATIENCE_S", 0.0)
    with pytest.raises(Refused, match="has no topic elsewhere"):
        await client.__aenter__()
    monkeypatch.setattr(kafka, "topics", lambda: {EVENTS.under("elsewhere")})
    async with client:
        pass


async def test_a_receipt_outlives_its_client_as_a_token_only(kafka: Kafka) -> None:
    async with MemoryClient() as client:
        receipt = client._receipt(captured())  # pyright: ignore[reportPrivateUsage]
    for use in (receipt.stored, receipt.status):
        with pytest.raises(Refused, match=r"client\.receipt\(receipt\.token\)"):
            await use()
    with pytest.raises(Refused, match="was closed"):
        client.receipt(receipt.token)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"text": " "}, "say what to look for"),
        ({"filter": {"metadata": {"price": 3.5}}}, r"filter\.metadata\.price: must be text"),
        ({"filter": "food"}, "filter: must be"),
    ],
)
async def test_a_search_that_cannot_be_right_asks_nobody(
    kafka: Kafka, asked: dict[str, Any], why: str
) -> None:
    question: dict[str, Any] = {"text": "dinner", "user_id": "alice"} | asked
    async with MemoryClient() as client:
        with pytest.raises(Refused, match=why):
            await client.search(**question)
