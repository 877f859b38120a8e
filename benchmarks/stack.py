"""A stack of a benchmark's own, that leaves nothing behind."""

import asyncio
import sys
from pathlib import Path

from pipeline.app import stage_processes
from pipeline.embedded import Plan, Stack, serve
from pipeline.settings import Settings


class OwnStack:
    """The whole stream on this machine, for the time of a block."""

    def __init__(self, folder: Path) -> None:
        self._plan = Plan(data=folder, stages=lambda stack: stage_processes(Settings(), stack))
        self._until = asyncio.Event()

    async def __aenter__(self) -> Stack:
        ready: asyncio.Future[Stack] = asyncio.get_running_loop().create_future()
        self._serving = asyncio.create_task(
            serve(
                self._plan,
                on_progress=lambda said: tell(f"{said.part} {said.phase} {said.detail}"),
                on_ready=ready.set_result,
                until=self._until,
            )
        )
        await asyncio.wait([self._serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            self._serving.result()
        return ready.result()

    async def __aexit__(self, *_: object) -> None:
        self._until.set()
        await self._serving


def tell(text: str) -> None:
    print(text, file=sys.stderr)
