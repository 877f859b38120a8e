"""The pages of a stage process, over HTTP."""

import asyncio
import json
import socket
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from pipeline.health import answering
from pipeline.liveness import Liveness


@pytest.fixture
def liveness() -> Liveness:
    liveness = Liveness()
    with liveness.polling("embedder"):
        return liveness


async def page(liveness: Liveness, path: str) -> tuple[int, bytes]:
    def get(url: str) -> tuple[int, bytes]:
        try:
            with urlopen(url, timeout=5) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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
    status, body = await page(liveness, "/metrics")
    assert status == 200
    for name in (b"hybrid_memory_dead_letters_total", b"hybrid_memory_batch_seconds"):
        assert name in body


async def test_another_page_is_not_there(liveness: Liveness) -> None:
    assert (await page(liveness, "/"))[0] == 404
