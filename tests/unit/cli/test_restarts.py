"""A process that was started again is told of, for a while."""

import os
from pathlib import Path

import pytest

from pipeline.cli.restarts import manner, restarted, why_halted
from pipeline.embedded.state import PartState, Stack

STACK_BEGAN_AT = 1_000.0


@pytest.mark.parametrize(
    ("began_at", "now", "told"),
    [
        (None, 2_000.0, "restarting"),
        (1_003.0, 1_005.0, ""),
        (1_500.0, 1_503.2, "restarted 3.2 s ago"),
        (1_500.0, 9_000.0, ""),
    ],
)
def test_it_is_news_for_a_while(began_at: float | None, now: float, told: str):
    assert manner(began_at, STACK_BEGAN_AT, now) == told


def stack(**parts: PartState) -> Stack:
    return Stack(
        data=Path(),
        pid=1,
        started_at=0.0,
        kafka_bootstrap_servers="",
        postgres_dsn="",
        redis_url="",
        qdrant_path=Path(),
        parts={name.replace("__", "+"): part for name, part in parts.items()},
    )


def test_a_stage_that_shares_its_process_is_found():
    down = stack(vector_writer__query=PartState(None), classifier=PartState(os.getpid()))
    assert restarted(down, "query") == "restarting"
    assert restarted(down, "classifier") != "restarting"


def test_one_that_halted_is_not_said_to_be_restarting():
    halted = stack(
        classifier=PartState(None, halted="[critical]  cannot run   reason=most failed\n")
    )
    assert restarted(halted, "classifier") == "halted"
    assert why_halted(halted, "classifier") == "[critical] cannot run reason=most failed"
    assert why_halted(halted, "embedder") == why_halted(None, "classifier") == ""


def test_nothing_is_said_of_what_the_stack_does_not_run():
    assert restarted(stack(), "classifier") == restarted(None, "classifier") == ""
