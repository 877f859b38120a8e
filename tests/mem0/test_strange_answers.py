"""What Mem0, or a proxy before it, answers that is no memory: it passes, and deletes nothing."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog

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


async def greeted(*answers: httpx.Response) -> None:
    """A start at a Mem0 that answers so, one after the other."""
    left = list(answers)
    transport = httpx.MockTransport(lambda _: left.pop(0))
    async with httpx.AsyncClient(base_url="http://mem0", transport=transport) as http:
        await mem0_api._check(http, "any", Turns())  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, text="<html>"), "answers, but not in JSON as Mem0 does: check MEM0_"),
        (httpx.Response(200, json=[]), "answers, but not in JSON as Mem0 does"),
        (httpx.Response(200, json={}), "answers, but not as Mem0 does: check MEM0_HOST"),
        (httpx.Response(429), "http://mem0: it limits requests for a moment$"),
        (httpx.Response(502), "http://mem0: it answered 502$"),
    ],
)
async def test_a_start_says_what_was_answered(answer: httpx.Response, said: str) -> None:
    with pytest.raises(Unavailable, match=said):
        await greeted(answer)


async def test_a_start_waits_as_long_as_it_is_asked_to_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged = structlog.testing.LogCapture()
    monkeypatch.setattr(mem0_api, "log", structlog.wrap_logger(None, [logged]))
    limited = httpx.Response(429, headers={"retry-after": "0.6"})
    await greeted(limited, httpx.Response(200, json={"project_id": "p"}))
    assert [line["reason"] for line in logged.entries] == ["it limits requests: next try in 1 s"]
