"""`import`: all good rows in, every bad one told, and it goes on where it stopped."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Command, FakeClient


@pytest.fixture
def file(home: Path) -> Path:
    return home / "rows.jsonl"


def write(file: Path, rows: Iterable[Any]) -> None:
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))


def rows(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"user": "alice", "id": f"m{n}", "text": f"text {n}", **fields} for n in range(count)]


def test_every_row_is_published_in_batches_and_waited_for(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(25))
    result = command("import", str(file), "--batch", "10", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "accepted": 25,
        "accepted_before": 0,
        "rejected": 0,
        "rejected_before": 0,
        "stored": 25,
        "stored_before": 0,
        "already_there": 0,
        "already_there_before": 0,
        "forgotten": 0,
        "forgotten_before": 0,
        "set_aside": 0,
        "set_aside_before": 0,
        "took_s": pytest.approx(0, abs=10),  # pyright: ignore[reportUnknownMemberType]
        "accepted_per_s": pytest.approx(0, abs=1e6),  # pyright: ignore[reportUnknownMemberType]
    }
    assert [len(batch) for batch in client.batches] == [10, 10, 5]
    assert len(client.waited_for) == 25


def test_a_row_that_is_rejected_or_empty_is_not_waited_for(
    command: Command, client: FakeClient, file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.cli.meter.SAY_EVERY_S", 0.0)
    write(file, [*rows(3), "no JSON", ""])
    told = command("import", str(file)).stderr
    assert "3 of 3 accepted, 3 stored" in told


def test_without_waiting_nobody_is_waited_for(command: Command, client: FakeClient, file: Path):
    write(file, rows(3))
    result = command("import", str(file), "--no-wait")
    assert result.exit_code == 0
    assert "3 accepted, 0 rejected; the stores follow" in result.stdout
    assert client.waited_for == []


def test_bad_rows_are_told_kept_and_cost_the_others_nothing(
    command: Command, client: FakeClient, file: Path, home: Path
):
    good = rows(3)
    write(file, [good[0], "{oops", good[1], "", {"text": "whose?"}, good[2]])
    result = command("import", str(file), "--rejects", "bad.jsonl")
    assert result.exit_code == 1
    assert "Read 5 rows: 3 accepted, 2 rejected; 3 stored" in result.stdout
    assert "line 2: no JSON" in result.stderr
    assert 'line 5: no "user"' in result.stderr
    assert set(client.memories) == {("alice", f"m{n}") for n in range(3)}
    kept = [json.loads(line) for line in (home / "bad.jsonl").read_text().splitlines()]
    assert [(bad["line"], bad["row"]) for bad in kept] == [
        (2, "{oops"),
        (5, '{"text": "whose?"}'),
    ]


def test_of_many_bad_rows_the_first_are_told_and_the_others_counted(
    command: Command, client: FakeClient, file: Path
):
    write(file, ["{"] * 25)
    result = command("import", str(file))
    assert result.stderr.count("no JSON") == 10
    assert "and 15 more" in result.stderr


def test_an_import_that_broke_goes_on_after_the_last_accepted_batch(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(10, run_id="r"))
    client.goes_away_after = 2
    broken = command("import", str(file), "--batch", "2")
    assert broken.exit_code == 75
    client.goes_away_after = None
    resumed = command("import", str(file), "--batch", "2")
    assert resumed.exit_code == 0
    assert "Goes on after line 4" in resumed.stderr
    assert "Read 6 rows: 6 accepted" in resumed.stdout
    assert "In all, with the rows of the run before: 10 rows, all stored." in resumed.stdout
    published = [memory for batch in client.batches for memory in batch]
    assert [memory.memory_id for memory in published] == [f"m{n}" for n in range(10)]
    assert [said.text for said in published[4].preceding] == ["text 2", "text 3"]


def test_a_complete_import_begins_anew_the_next_time(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(3))
    for _ in range(2):
        assert "Read 3 rows: 3 accepted" in command("import", str(file)).stdout
    assert len(client.memories) == 3


def test_restart_forgets_where_it_stopped(command: Command, client: FakeClient, file: Path):
    write(file, rows(4))
    client.goes_away_after = 1
    command("import", str(file), "--batch", "2")
    client.goes_away_after = None
    result = command("import", str(file), "--restart")
    assert "Read 4 rows: 4 accepted" in result.stdout


def test_rows_without_ids_are_the_same_memories_the_second_time(
    command: Command, client: FakeClient, file: Path
):
    write(file, [{"text": "a"}, {"text": "b"}])
    for _ in range(2):
        command("import", str(file), "--user", "alice")
    assert len(client.memories) == 2


def test_dead_letters_are_told_and_counted(command: Command, client: FakeClient, file: Path):
    write(file, rows(3))
    client.set_aside = {"m1": "It went to the dead letters."}
    result = command("import", str(file))
    assert result.exit_code == 1
    assert "m1: It went to the dead letters." in result.stderr
    assert "2 stored, 1 in the dead letters" in result.stdout


@pytest.mark.parametrize("name", ["nowhere.jsonl", "."])
def test_what_cannot_be_read_is_refused(command: Command, client: FakeClient, name: str):
    result = command("import", name)
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


def test_an_import_that_goes_on_answers_for_the_rows_before(
    command: Command, client: FakeClient, file: Path
):
    write(file, ["{", *rows(5)])
    client.goes_away_after = 1
    assert command("import", str(file), "--batch", "3").exit_code == 75
    client.goes_away_after = None
    resumed = command("import", str(file), "--batch", "3")
    assert resumed.exit_code == 1
    assert "6 rows, 5 accepted, 1 rejected: 5 stored." in resumed.stdout


def test_rows_that_nobody_waited_for_are_published_again_and_waited_for(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(4))
    client.goes_away_after = 1
    command("import", str(file), "--batch", "2", "--no-wait")
    client.goes_away_after = None
    resumed = command("import", str(file), "--batch", "2")
    assert resumed.exit_code == 0
    assert "waited for nothing: all rows are published again" in resumed.stderr
    assert "Read 4 rows: 4 accepted, 0 rejected; 4 stored" in resumed.stdout


def test_at_its_end_an_import_that_goes_on_knows_of_every_row(
    command: Command, client: FakeClient, file: Path
):
    """What was accepted and not seen stored is published again, and waited for."""
    write(file, ["{", *rows(5)])
    client.is_late = True
    assert command("import", str(file), "--batch", "3", "--rejects", "bad").exit_code == 75
    client.is_late = False
    resumed = command("import", str(file), "--batch", "3", "--rejects", "bad")
    assert "Read 6 rows: 5 accepted, 1 rejected; 5 stored" in resumed.stdout
    assert {receipt.event.memory_id for receipt in client.waited_for} == {f"m{n}" for n in range(5)}
    assert (file.parent / "bad").read_text().count("no JSON") == 1
    assert "no JSON" not in resumed.stderr


@pytest.mark.parametrize("sizes", [("2", "2"), ("3", "2"), ("2", "5")])
def test_rows_of_the_stopped_run_are_its_own_and_not_there_already(
    command: Command, client: FakeClient, file: Path, sizes: tuple[str, str]
):
    """Accepted and not seen stored, and sent without an answer: both are the same events the second time."""
    write(file, rows(10))
    client.is_late = client.goes_away_within = True
    assert command("import", str(file), "--batch", sizes[0]).exit_code == 75
    client.goes_away_within = False
    assert command("import", str(file), "--batch", sizes[0]).exit_code == 75
    client.is_late = False
    resumed = command("import", str(file), "--batch", sizes[1])
    assert "10 accepted, 0 rejected; 10 stored;" in resumed.stdout
    assert "already there" not in resumed.stdout
    assert "is published once more" in resumed.stderr


def test_what_somebody_else_had_put_there_stays_there_already_after_a_stop(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(10))
    client.first = {"m1": 1, "m9": 1}
    client.is_late = True
    assert command("import", str(file), "--batch", "2").exit_code == 75
    client.is_late = False
    assert "; 8 stored, already there: 2;" in command("import", str(file), "--batch", "2").stdout


def test_a_complete_import_once_more_finds_all_rows_there(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(4))
    command("import", str(file))
    assert "already there: 4;" in command("import", str(file)).stdout


def test_rows_that_replace_what_is_there_are_new_events_each_time(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(4))
    client.is_late = True
    assert command("import", str(file), "--overwrite").exit_code == 75
    client.is_late = False
    assert "; 4 stored;" in command("import", str(file), "--overwrite").stdout


def test_rows_that_are_there_already_are_counted(command: Command, client: FakeClient, file: Path):
    write(file, rows(4))
    client.outcomes = {"m0": "superseded", "m1": "superseded", "m2": "forgotten"}
    result = command("import", str(file))
    assert "; 1 stored, already there: 2, forgotten before, and left so: 1;" in result.stdout
    client.first = {}
    told = json.loads(command("import", str(file), "--json").stdout)
    assert (told["stored"], told["already_there"], told["forgotten"]) == (1, 2, 1)


def test_what_stopped_an_import_is_told_with_how_to_go_on(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(4))
    client.goes_away_after = 1
    told = command("import", str(file), "--batch", "2").stderr
    assert "Stopped: 2 accepted, none of them lost. The same command goes on from here." in told
    assert "Kafka is away." in told


@pytest.mark.parametrize(
    ("content", "command_that_helps"),
    [
        (gzip.compress(b'{"text": "a"}', mtime=0), "gunzip -c"),
        ('{"text": "a"}'.encode("utf-16"), "iconv -f UTF-16"),
        (b'[{"text": "a"},\n {"text": "b"}]', "jq -c '.[]'"),
        (b'{\n  "text": "a"\n}', "jq -c ."),
        (b"user,text\nalice,hello", "csv.DictReader"),
        (b"user;text\nalice;hello", "delimiter=';'"),
    ],
)
def test_what_holds_no_rows_at_all_is_refused_with_what_helps(
    command: Command, client: FakeClient, file: Path, content: bytes, command_that_helps: str
):
    file.write_bytes(content)
    result = command("import", str(file), "--user", "alice")
    assert result.exit_code == 2
    assert command_that_helps in result.stderr
    assert client.batches == []


def test_rejects_that_cannot_be_written_are_told_before_anything_is_published(
    command: Command, client: FakeClient, file: Path
):
    write(file, rows(3))
    result = command("import", str(file), "--rejects", "nowhere/bad.jsonl")
    assert result.exit_code == 2
    assert "--rejects nowhere/bad.jsonl cannot be written" in result.stderr
    assert client.batches == []


def test_rejects_are_a_file_only_if_there_are_any(
    command: Command, client: FakeClient, file: Path, home: Path
):
    write(file, rows(3))
    assert command("import", str(file), "--rejects", "bad.jsonl").exit_code == 0
    assert not (home / "bad.jsonl").exists()
