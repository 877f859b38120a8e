"""What fuzzing has found, each by itself."""

from pathlib import Path

import pytest

from consumers import classifier
from pipeline.cli.reaching import read_settings
from pipeline.errors import Refused
from pipeline.kafka.dead_letters import letter_of
from pipeline.models.classifier import HeuristicClassifier
from tests.fuzz.stream import Line, quiet_loop
from tests.fuzz.test_doors import record


def test_one_bad_message_does_not_halt_a_stage_whose_kafka_is_away() -> None:
    with quiet_loop(0) as (loop, network):
        line = Line(loop, network, classifier.stage(HeuristicClassifier()))
        network.weather.refuse = 1.99
        loop.outside(600, network.weather.clear)
        line.feed([b"junk"])
        assert {letter.value for letter in line.dead()} == {b"junk"}
        assert loop.time() > 600


@pytest.mark.parametrize("written", ["kafka_partitions: 0x_", "log_level: 2026-13-45"])
def test_a_number_or_a_date_that_is_none_is_refused(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hybrid-memory.yaml").write_text(written)
    with pytest.raises(Refused, match="cannot be read"):
        read_settings()


@pytest.mark.parametrize("timestamp_ms", [2**62, -(2**62), -1])
def test_a_dead_letter_of_no_time_is_still_listed(timestamp_ms: int) -> None:
    dead = record(b"x", [("dead-at", b"never")])
    dead.timestamp = timestamp_ms
    assert letter_of(dead).at.year in {1970, 9999}


def test_a_dead_letter_at_the_end_of_time_is_still_listed() -> None:
    dead = record(b"x", [("dead-at", b"9999-12-31T23:59:59.999999-14:00")])
    assert letter_of(dead).at.year == 1970
