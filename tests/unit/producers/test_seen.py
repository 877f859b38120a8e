"""What was seen is known to be there."""

from uuid import uuid4

from producers.seen import Passed, Seen


def test_the_newest_version_of_a_memory_counts() -> None:
    seen = Seen()
    for version in (5, 9, 7):
        seen.add("alice", "m", version)
    assert (seen.newest("alice", "m"), seen.newest("bob", "m"), seen.newest("alice", "n")) == (
        9,
        0,
        0,
    )


def test_of_a_user_the_newest_of_all_counts() -> None:
    seen = Seen()
    seen.add("alice", "m", 5)
    seen.add("alice", "n", 9)
    seen.add("bob", "m", 11)
    assert (seen.newest_of_user("alice"), seen.newest_of_user("carol")) == (9, 0)


def test_it_keeps_those_seen_last() -> None:
    seen = Seen(most=2)
    for memory_id in ("a", "b", "a", "c"):
        seen.add("alice", memory_id, 1)
    assert [seen.newest("alice", memory_id) for memory_id in "abc"] == [1, 0, 1]


def test_what_follows_the_forgetting_of_a_user_is_newer_than_that():
    seen = Seen()
    seen.forgot_user("alice", 9)
    assert (
        seen.newest("alice", "m"),
        seen.newest("alice", None),
        seen.newest_of_user("alice"),
    ) == (
        9,
        9,
        9,
    )
    assert seen.newest("bob", "m") == 0


def test_an_event_that_went_by_is_known_again():
    passed, one, other = Passed(most=1), uuid4(), uuid4()
    assert [passed.again(each) for each in (one, one, other, one)] == [False, True, False, False]
