"""A batch that Kafka refuses for its size costs its producer nothing.

An idempotent producer numbers what it publishes to a partition, and Kafka takes the next number only. aiokafka
counts a batch that was refused, too: all that it publishes there from then on would be out of order, until
the process starts again. So such a batch gives its numbers back, as Kafka's own client does. There is
never a second batch on the way to a partition that could have taken the next ones.

Like `batches`, this reaches into aiokafka, whose version is held for it.
"""

from typing import Any

from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.producer import sender as _sender

REFUSED = (MessageSizeTooLargeError, RecordListTooLargeError)


def publish_past_what_is_refused() -> None:
    """From now on, all producers of this process publish on after that. Safe to repeat."""
    sender: Any = _sender
    sender.SendProduceReqHandler = _Handler


class _Handler(_sender.SendProduceReqHandler):
    """Hears what Kafka says of each batch."""

    def _can_retry(self, error: Any, batch: Any) -> bool:
        own: Any = self
        transactions = own._sender._txn_manager
        if isinstance(error, REFUSED) and transactions is not None:
            transactions._sequence_numbers[batch.tp] -= batch.record_count
        return super()._can_retry(error, batch)
