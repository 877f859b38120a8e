"""Where a memory's time went."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from pipeline.cli.hops import Heard

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def passed(**after_ms: int) -> dict[str | None, datetime]:
    moments: dict[str | None, datetime] = {None: NOON}
    return moments | {
        stage: NOON + timedelta(milliseconds=milliseconds)
        for stage, milliseconds in after_ms.items()
    }


def test_each_stage_is_timed_from_the_one_before_it():
    first, second = uuid4(), uuid4()
    heard = Heard(
        {
            first: passed(classifier=10, embedder=40, record_writer=50, vector_writer=90),
            second: passed(classifier=20, embedder=50, record_writer=60, vector_writer=70),
        }
    )
    assert heard.medians_ms([first, second]) == {
        "classifier": 15,
        "embedder": 30,
        "record_writer": 10,
        "vector_writer": 35,
        "searchable": 80,
    }


def test_what_was_not_heard_of_is_left_out():
    assert Heard().medians_ms([UUID(int=1)]) == {}


def test_others_are_not_taken_for_what_is_waited_for():
    mine, half, anothers = uuid4(), uuid4(), uuid4()
    done = passed(record_writer=50, vector_writer=90)
    heard = Heard(
        {mine: done, half: passed(record_writer=50), anothers: done},
        {mine: "alice", half: "alice", anothers: "bob"},
    )
    assert heard.stored({"alice"}) == [mine]
    heard.taken.add(mine)
    assert heard.stored({"alice"}) == []
