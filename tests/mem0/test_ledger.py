"""How a ledger that another poller has taken over learns of it, whatever words Kafka and its client use."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced, UnknownError

from pipeline.errors import Refused
from pipeline.kafka.connection import KafkaConnection
from pipeline.sources.mem0_ledger import Ledger


def hidden(error: Exception) -> KafkaError:
    """As aiokafka's sender ends when it did not expect what Kafka said."""
    around = KafkaError("Unexpected error during batch delivery")
    around.__cause__ = error
    return around


@pytest.mark.parametrize(
    "error",
    [
        ProducerFenced(),
        InvalidProducerEpoch(),
        UnknownError(),
        hidden(UnknownError()),
        hidden(InvalidProducerEpoch()),
    ],
    ids=repr,
)
async def test_whoever_was_taken_over_ends_and_says_so(error: Exception):
    async def sender() -> None:
        raise error

    async def forever() -> None:
        await asyncio.Event().wait()

    sending = asyncio.create_task(sender())
    producer: Any = SimpleNamespace(
        _sender=SimpleNamespace(sender_task=sending), begin_transaction=forever
    )
    book = Ledger(producer, KafkaConnection("nowhere:9092"), "p", {}, None)
    with pytest.raises(Refused, match="taken over"):
        await book.drop(["m"])


async def test_however_much_is_dropped_no_transaction_is_large(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    async def commit(records: Sequence[Any]) -> None:
        sizes.append(len(records))

    producer: Any = None
    seen: Any = {str(number): None for number in range(1_200)}
    book = Ledger(producer, KafkaConnection("nowhere:9092"), "p", seen, None)
    monkeypatch.setattr(book, "_commit", commit)
    await book.drop(list(seen))
    assert sizes == [500, 500, 200]
    assert not book.seen
