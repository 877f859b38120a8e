"""What Mem0, or a proxy before it, answers that is no memory: it passes, and deletes nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import Unavailable
from pipeline.sources import mem0_api
from pipeline.sources.mem0_api import Mem0Api, Turns, ends_with_deletion

STRANGE: list[Any] = [None, "gone", [], ["gone"], [None], {"results": []}, {"error": "gone"}, 7]


def answering(answered: Any, monkeypatch: pytest.MonkeyPatch) -> Mem0Api:
    """Mem0 that answers one thing only."""

    async def answer(_: str) -> Any:
        return answered

    monkeypatch.setattr(mem0_api, "ATTEMPTS", 2)
    http = SimpleNamespace(event_hooks={"response": []})
    client: Any = SimpleNamespace(get=answer, history=answer, async_client=http)
    api = Mem0Api(client, Turns())
    api.hurry(0.001)
    return api


@pytest.mark.parametrize("answered", STRANGE, ids=repr)
async def test_what_is_no_memory_is_no_answer(
    answered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="no memory"):
        await answering(answered, monkeypatch).find("m")


@pytest.mark.parametrize("answered", [one for one in STRANGE if one != []], ids=repr)
async def test_what_is_no_history_is_no_answer(
    answered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="no history"):
        await answering(answered, monkeypatch).tells_deletion("m")


@pytest.mark.parametrize(
    ("events", "is_gone"),
    [
        ([], False),
        (["ADD", "UPDATE"], False),
        (["ADD", "DELETE"], True),
        (["ADD", "DELETE", "ADD"], False),
    ],
)
def test_only_a_history_that_ends_with_a_deletion_tells_one(
    events: list[str], is_gone: bool
) -> None:
    assert ends_with_deletion([{"event": event} for event in events]) == is_gone
