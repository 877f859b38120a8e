"""A poll that fails takes records along: nothing may be committed past them."""

from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from pipeline.kafka.process import _guarded  # pyright: ignore[reportPrivateUsage]


class Stage:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def begin(self) -> None:
        self.told.append("begins at its commits")

    async def pass_markers(self) -> None:
        self.told.append("nothing came")

    def halt_at_unreadable(self, error: Exception) -> None:
        self.told.append(f"halts: {error}")


def polling(stage: Any, *results: Any) -> Any:
    left = iter(results)

    async def poll() -> Any:
        result = next(left)
        if isinstance(result, Exception):
            raise result
        return result

    return _guarded(poll, stage)


async def test_the_first_poll_begins_where_the_group_has_committed() -> None:
    stage = Stage()
    poll = polling(stage, {"tp": ["record"]}, {})
    assert await poll() == {"tp": ["record"]}
    assert await poll() == {}
    assert stage.told == ["begins at its commits", "nothing came"]


async def test_a_record_that_cannot_be_read_halts_the_stage() -> None:
    stage = Stage()
    poll = polling(stage, ValueError("no UTF-8"))
    with pytest.raises(ValueError, match="no UTF-8"):
        await poll()
    assert stage.told[-1] == "halts: no UTF-8"


async def test_a_broker_that_is_away_halts_nobody() -> None:
    stage = Stage()
    poll = polling(stage, KafkaConnectionError())
    with pytest.raises(KafkaConnectionError):
        await poll()
    assert stage.told == ["begins at its commits"]
