"""A long wait says what for, a short one nothing."""

import asyncio

import pytest

from pipeline.cli.patience import saying


async def test_a_long_wait_is_told_once(capsys: pytest.CaptureFixture[str]):
    async with saying("Looking for it.", after_s=0.01):
        await asyncio.sleep(0.1)
    assert capsys.readouterr().err == "Looking for it.\n"


async def test_a_short_one_is_not(capsys: pytest.CaptureFixture[str]):
    async with saying("Looking for it.", after_s=10):
        pass
    assert capsys.readouterr().err == ""
