"""`rebuild`: whoever stops it knows which index is in use."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pipeline.cli import rebuild
from pipeline.cli.reaching import located
from tests.unit.cli.conftest import FakeClient


class Slow:
    """A fresh index and what fills it; the step `until` never ends."""

    def __init__(self, until: str) -> None:
        self.until = until

    async def from_forgettings(self, _: object) -> None: ...

    async def from_log(self, _: object) -> None:
        await self._step("fill")

    async def agree(self, *_: object) -> None: ...

    async def replace(self, _: object) -> None:
        await self._step("switch")

    async def _step(self, name: str) -> None:
        if name == self.until:
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("until", "told"),
    [
        ("fill", "Stopped. Nothing has changed"),
        ("switch", "Stopped. It was about to switch over"),
        ("compare", "Stopped. The fresh index is in use"),
    ],
)
async def test_who_stops_it_is_told_which_index_is_in_use(
    client: FakeClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    until: str,
    told: str,
):
    slow = Slow(until)

    @asynccontextmanager
    async def opened(*_: object) -> AsyncGenerator[Any]:
        yield slow, slow, None

    async def compared(_: object) -> None:
        await asyncio.Event().wait()

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr("pipeline.app.open_for_rebuilding", opened)
    monkeypatch.setattr(rebuild, "_fill_tiers", nothing)
    monkeypatch.setattr(rebuild, "_tell_tiers", nothing)
    monkeypatch.setattr(rebuild, "_compared", compared)
    going = asyncio.create_task(rebuild._rebuild(located(None), "log"))  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(0.2)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert told in capsys.readouterr().err
