"""The pages of a stage process, over HTTP."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.error import HTTPError
from urllib.request import urlopen

import httpx
import pytest

from pipeline import metrics
from pipeline.health import MOST_BYTES, answering
from pipeline.liveness import Liveness


@pytest.fixture
def liveness() -> Liveness:
    liveness = Liveness()
    with liveness.polling("embedder"):
        return liveness


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


async def page(liveness: Liveness, path: str) -> tuple[int, bytes]:
    def get(url: str) -> tuple[int, bytes]:
        try:
            with urlopen(url, timeout=5) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    port = free_port()
    async with answering(liveness, host="127.0.0.1", port=port):
        return await asyncio.to_thread(get, f"http://127.0.0.1:{port}{path}")


@pytest.mark.parametrize("path", ["/live", "/ready"])
async def test_who_drinks_is_alive_and_ready(liveness: Liveness, path: str) -> None:
    status, body = await page(liveness, path)
    assert (status, json.loads(body)["state"]) == (200, "ready")


async def test_who_waits_for_a_neighbour_is_alive_but_not_ready(liveness: Liveness) -> None:
    liveness.troubles["embedder"] = "Valkey does not answer"
    status, body = await page(liveness, "/ready")
    assert status == 503
    assert json.loads(body)["troubles"] == {"embedder": "Valkey does not answer"}
    assert (await page(liveness, "/live"))[0] == 200


async def test_what_was_done_is_told_to_prometheus(liveness: Liveness) -> None:
    metrics.SET_ASIDE.labels("embedder").inc(0)
    status, body = await page(liveness, "/metrics")
    assert status == 200
    for name in (b"hybrid_memory_dead_letters_total", b"hybrid_memory_batch_seconds"):
        assert name in body


async def asked(method: str, path: str, body: bytes | None = None) -> tuple[int, int]:
    """The status, and how many hints were taken."""
    taken: list[str] = []
    port = free_port()
    hints = {"/webhooks/mem0": lambda: taken.append("hint")}
    async with (
        answering(Liveness(), host="127.0.0.1", port=port, hints=hints),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        answered = await http.request(method, path, content=body)
    return answered.status_code, len(taken)


@pytest.mark.parametrize("path", ["/webhooks/mem0", "/webhooks/mem0/"])
@pytest.mark.parametrize("body", [None, b"", b"{", b"\xff" * MOST_BYTES])
async def test_a_hint_is_taken_whatever_it_says(path: str, body: bytes | None) -> None:
    assert await asked("POST", path, body) == (202, 1)


async def test_a_long_hint_is_not_read_to_its_end() -> None:
    assert await asked("POST", "/webhooks/mem0", b"x" * (MOST_BYTES + 1)) == (413, 0)


async def test_only_a_post_is_a_hint() -> None:
    assert await asked("GET", "/webhooks/mem0") == (405, 0)
    assert (await asked("POST", "/webhooks/other"))[0] == 404


async def test_a_hint_that_does_not_come_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.health.HINT_S", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.5)
        yield b"x"

    port = free_port()
    async with (
        answering(Liveness(), host="127.0.0.1", port=port, hints={"/h": lambda: None}),
        httpx.AsyncClient() as http,
    ):
        answered = await http.post(f"http://127.0.0.1:{port}/h", content=slow())
    assert answered.status_code == 408


async def test_another_page_is_not_there(liveness: Liveness) -> None:
    assert (await page(liveness, "/"))[0] == 404
