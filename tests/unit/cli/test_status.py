"""status: what is down is said, whatever is down."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from pipeline.cli import checks
from pipeline.cli import status as module
from pipeline.cli.checks import Part
from pipeline.cli.mem0_trouble import Trouble
from pipeline.cli.status import StageState, Status, is_overdue, late_s, picture
from pipeline.contract.flows import flows
from pipeline.errors import Unavailable
from pipeline.kafka.connection import KafkaConnection
from pipeline.kafka.lag import GroupState
from schemas.mem0 import Mem0CycleEnded
from tests.unit.cli.conftest import NOON, Command


def status(**fields: Any) -> Status:
    defaults: dict[str, Any] = {
        "parts": [Part("Kafka", "localhost:9092", True)],
        "stages": [StageState("classifier", "memory.events", 0, 1)],
        "record": 7,
        "index": 7,
        "dead_letters": 0,
    }
    return Status(**(defaults | fields))


def shown(seen: Status, *, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(picture(seen))
    return capture.get()


def test_all_is_well_when_all_is_up():
    assert status().ok
    assert "Memories: 7 in Postgres, 7 in the index." in shown(status())


@pytest.mark.parametrize(
    "fields",
    [
        {"parts": [Part("Kafka", "", False, "away")]},
        {"stages": [StageState("classifier", "memory.events", 5, 0)]},
        {"stages": [StageState("classifier", "memory.events", None, None)]},
        {"stages": [StageState("classifier", "memory.events", 0, 1, "restarting")]},
        {"stages": [StageState("classifier", "memory.events", 0, 1, "halted", "most failed")]},
        {"record": None, "index": None},
    ],
)
def test_anything_down_is_not_well(fields: dict[str, Sequence[Any]]):
    assert not status(**fields).ok


LATE = Part("Kafka", "localhost:9092", None, "did not answer within 15 s: busy?", late=True)
UNTOLD = [StageState("classifier", "memory.events", None, None)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"parts": [LATE]}, "Kafka  ?  localhost:9092  did not answer within 15 s: busy?"),
        ({"stages": UNTOLD, "record": None}, "Kafka did not answer within 15 s: busy? Ask again."),
        ({"record": None}, "the operator desk did not answer within 15 s: busy? Ask again."),
    ],
)
def test_what_did_not_answer_in_time_is_not_said_to_be_down(fields: dict[str, Any], said: str):
    seen = status(**fields)
    assert (seen.ok, seen.down) == (False, False)
    assert said in shown(seen)
    assert "down" not in shown(seen)


def test_a_desk_that_nobody_runs_is_down():
    seen = status(stages=[StageState("operator_desk", "memory.operator.asked", 0, 0)], record=None)
    assert seen.down
    assert "no operator desk runs." in shown(seen)


def test_what_is_not_known_has_an_exit_code_of_its_own(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    seen = [
        status(parts=[Part("Kafka", "", False, "away")], record=None),
        status(record=None),
        status(),
    ]

    async def look(_: object) -> Status:
        return seen.pop()

    monkeypatch.setattr(module, "look", look)
    assert [command("status").exit_code for _ in range(3)] == [0, 75, 1]


async def test_a_part_that_answers_late_is_not_down(monkeypatch: pytest.MonkeyPatch):
    async def ask(_: str) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(checks, "PATIENCE_S", 0.01)
    part = await checks._check("Kafka", "host:1", "KAFKA", ask)  # pyright: ignore[reportPrivateUsage]
    assert (part.up, part.late) == (None, True)


def test_a_stage_that_halted_is_shown_with_why_once_a_process():
    both = [StageState(name, "memory.enriched", 5, 0, "halted", "most failed") for name in "ab"]
    assert "a, b halted: most failed" in shown(status(stages=both))


def test_how_often_a_cache_was_of_use_is_shown_once_somebody_has_asked():
    used = {"kind": "answers", "tier": 0, "hits": 3, "misses": 1}
    unused = {"kind": "vectors", "tier": 2, "hits": 0, "misses": 0}
    told = shown(status(caches=[used, unused], cache_bytes=2_621_440))
    assert "answers 75% in this desk's memory; 2.5 MiB held." in told
    assert "Found again" not in shown(status(caches=[unused]))


def test_a_poller_is_shown_with_the_stack_that_has_one():
    assert "Mem0" not in shown(status())
    assert status(poller="up").ok
    assert "no look at Mem0 has ended yet" in shown(status(poller="up"))
    assert not status(poller="down").ok
    down = status(poller="down", poller_log="/data/logs/mem0.log")
    assert "the poller is down; /data/logs/mem0.log says why" in shown(down)


CYCLE = Mem0CycleEnded(
    project_id="p", cycle=3, started_at=NOON, took_s=0.1, requests=1, users=1, memories=2
).model_dump(mode="json")


def test_a_poller_that_halted_is_shown_with_why():
    seen = status(mem0=CYCLE, poller="down", poller_halted="218 of 218 memories have disappeared")
    assert "Mem0: the poller halted: 218 of 218 memories have disappeared" in shown(seen, width=200)
    assert "runs" not in shown(seen)


@pytest.mark.parametrize("mem0", [None, CYCLE])
def test_a_mem0_that_does_not_answer_is_shown_with_why(mem0: dict[str, Any] | None):
    trouble = Trouble(datetime.now(UTC) - timedelta(seconds=5), "Mem0 at h does not answer")
    told = shown(status(mem0=mem0, poller="up", mem0_trouble=trouble), width=200)
    assert "its last try failed 5." in told
    assert "ago: Mem0 at h does not answer. It tries again." in told


@pytest.mark.parametrize(
    ("poller", "said"), [("up", "The poller runs."), (None, "No stack here runs its poller.")]
)
def test_a_look_is_shown_with_whether_another_one_will_follow(poller: str | None, said: str):
    assert said in shown(status(mem0=CYCLE, poller=poller), width=200)


def test_a_look_that_is_late_is_said_to_be():
    assert late_s(CYCLE, NOON + timedelta(seconds=90), interval_s=60.0) == pytest.approx(29.8)
    assert ", 30.0 s late" in shown(status(mem0=CYCLE, mem0_late_s=30.0), width=200)
    assert "late" not in shown(status(mem0=CYCLE, mem0_late_s=5.0), width=200)


@pytest.mark.parametrize(("ago_s", "overdue"), [(14.0, False), (17.0, True)])
def test_a_poller_that_has_not_looked_for_three_intervals_is_overdue(ago_s: float, overdue: bool):
    ended = {"started_at": NOON.isoformat(), "took_s": 0.5}
    assert is_overdue(ended, NOON + timedelta(seconds=ago_s), interval_s=5.0) is overdue


def test_an_overdue_poller_is_told():
    seen = status(mem0=CYCLE, mem0_overdue=True)
    assert "Mem0: overdue." in shown(seen)


def test_a_part_that_cannot_be_asked_is_not_down():
    assert status(parts=[Part("Postgres", "db", None, "not asked")]).ok


def test_lag_dead_letters_and_differences_are_shown():
    text = shown(
        status(
            stages=[StageState("embedder", "memory.classified", 12_345, 2)],
            index=6,
            dead_letters=3,
        )
    )
    assert "12,345" in text
    assert "7 in Postgres, 6 in the index (they differ" in text
    assert "Dead letters: 3. `hybrid-memory dead list` shows them." in text


@pytest.mark.parametrize(
    ("stage", "fields", "said"),
    [
        ("vector_writer", {}, "they come once more"),
        ("query", {}, "some are answered"),
        ("vector_writer", {"index": 6}, None),
        ("classifier", {}, None),
    ],
)
def test_lag_that_keeps_nothing_from_being_found_is_explained(
    stage: str, fields: dict[str, int], said: str | None
):
    lines = ("they come once more", "some are answered")
    text = " ".join(shown(status(stages=[StageState(stage, "topic", 5, 1)], **fields)).split())
    assert [line for line in lines if line in text] == [line for line in lines if line == said]
    quiet = " ".join(shown(status(stages=[StageState(stage, "topic", 0, 1)])).split())
    assert not any(line in quiet for line in lines)


def test_the_desks_and_those_who_hear_again_are_stages():
    assert {flow.stage for flow in flows()} >= module._HEAR_AGAIN | module._DESKS  # pyright: ignore[reportPrivateUsage]


def test_where_nothing_runs_everything_is_said_to_be_down(command: Command):
    result = command("status")
    assert result.exit_code == 1
    assert result.stdout.count("none runs here") == 4
    assert "KAFKA_BOOTSTRAP_SERVERS names another" in result.stdout


def test_json_tells_it_to_programs(command: Command):
    result = command("status", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["ok"] is False
    assert [part["up"] for part in told["parts"]] == [False] * 4
    assert {stage["stage"] for stage in told["stages"]} >= {"classifier", "embedder", "query"}


def test_servers_that_are_away_are_said_to_be_down(
    command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://u:secret@127.0.0.1:1/d")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@127.0.0.1:1")
    monkeypatch.setenv("QDRANT_URL", "http://127.0.0.1:1")
    result = command("status", "--json")
    told = json.loads(result.stdout)
    assert [part["up"] for part in told["parts"]] == [False] * 4
    assert "secret" not in result.output


def test_a_stage_that_was_started_again_says_so():
    stages = [StageState("classifier", "memory.events", 0, 1, "restarted 3.2 s ago")]
    assert "restarted 3.2 s ago" in shown(status(stages=stages))


@pytest.mark.parametrize("failure", [None, Unavailable("Kafka is away")])
async def test_letters_that_take_too_long_to_count_hide_no_stage(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None
):
    async def states(_: KafkaConnection, reads: Mapping[str, str]) -> dict[str, GroupState]:
        return {group: GroupState(lag=3, members=0) for group in reads}

    async def count(*_: object) -> int:
        if failure:
            raise failure
        await asyncio.sleep(60)
        return 1

    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    monkeypatch.setattr("pipeline.kafka.lag.group_states", states)
    monkeypatch.setattr("pipeline.kafka.redriving.count_open", count)
    stages, dead, _ = await module._stream(  # pyright: ignore[reportPrivateUsage]
        KafkaConnection("localhost:9092"), "memory"
    )
    assert {stage.lag for stage in stages} == {3}
    assert dead is None


def test_letters_that_were_not_counted_are_not_said_to_be_none():
    assert status(dead_letters=None).ok
    assert "Dead letters: not counted in time" in shown(status(dead_letters=None))
    nobody_knows = [StageState("classifier", "memory.events", None, None)]
    assert "Dead letters" not in shown(status(dead_letters=None, stages=nobody_knows))


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_cuts_no_name(width: int):
    topic = "memory.search.operator.asked.very.long"
    told = shown(status(stages=[StageState("contextualizer", topic, 0, 1)]), width=width)
    assert "…" not in told
    parts = (line[line.rindex("memory") :] for line in told.splitlines() if "memory." in line)
    assert next(parts).split()[0] in topic
