"""A record that may have been sent twice is expected twice."""

from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError

from pipeline.chaos import publishing
from pipeline.chaos.plan import Step
from pipeline.chaos.publishing import Publisher
from pipeline.kafka.connection import KafkaConnection


async def test_each_try_of_a_raw_record_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bytes] = []

    class Producer:
        async def send_and_wait(self, _: str, value: bytes, **__: Any) -> None:
            tries.append(value)
            if len(tries) == 1:
                raise KafkaTimeoutError("it may have arrived")

    async def not_needed(_: int) -> None: ...

    monkeypatch.setattr(publishing, "_AGAIN_S", 0)
    publisher = Publisher(KafkaConnection("nowhere:1"), "memory")
    monkeypatch.setattr(publisher, "_producer", Producer(), raising=False)
    monkeypatch.setattr(publisher, "_open_anew", not_needed)
    await publisher.publish([Step(1, "raw", "alice", "m", text="said")])
    assert len(tries) == 2
    assert publisher.sent == {publisher.facts[0].event_id: 2}
