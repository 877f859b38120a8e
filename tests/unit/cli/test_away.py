"""Who waits for news is told that none can come."""

import asyncio

import pytest

from pipeline.cli import away
from pipeline.cli.away import telling_when_away
from pipeline.kafka.connection import KafkaConnection


async def test_silence_is_explained_once_until_kafka_is_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(away, "LOOK_EVERY_S", 0.01)

    async def serve(_: object, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with telling_when_away(KafkaConnection(f"127.0.0.1:{port}")):
        await asyncio.sleep(0.1)
        assert capsys.readouterr().err == ""
        server.close()
        await told_once(capsys, "cannot be reached. This goes on when it is back")
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        await told_once(capsys, "Kafka is back.\n")
    server.close()


async def told_once(capsys: pytest.CaptureFixture[str], what: str):
    told = ""
    async with asyncio.timeout(10):
        while what not in told:
            await asyncio.sleep(0.05)
            told += capsys.readouterr().err
    await asyncio.sleep(0.1)
    told += capsys.readouterr().err
    assert (told.count(what), told.count("\n")) == (1, 1)
