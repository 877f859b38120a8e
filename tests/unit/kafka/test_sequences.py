"""What Kafka refuses for its size leaves no gap in the numbers of its producer."""

from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, NotLeaderForPartitionError
from aiokafka.producer import sender
from aiokafka.producer.transaction_manager import TransactionManager

import pipeline.kafka.connection  # noqa: F401  # pyright: ignore[reportUnusedImport]

TP = TopicPartition("memory.dead", 0)


async def test_a_batch_that_is_refused_gives_its_numbers_back() -> None:
    transactions: Any = TransactionManager(None, 1)
    transactions.increment_sequence_number(TP, 7)
    transactions.increment_sequence_number(TP, 3)
    owner: Any = SimpleNamespace(_txn_manager=transactions, client=None, _retry_backoff=0.1)
    batch: Any = SimpleNamespace(tp=TP, record_count=3, expired=lambda: False)
    handler: Any = sender.SendProduceReqHandler(owner, {TP: batch})
    # What comes again keeps its numbers.
    assert handler._can_retry(NotLeaderForPartitionError(), batch)
    assert transactions.sequence_number(TP) == 10
    assert not handler._can_retry(MessageSizeTooLargeError(), batch)
    assert transactions.sequence_number(TP) == 7
