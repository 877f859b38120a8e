"""What was seen is known to be there, and what was told is no news."""

from pipeline.stores.records_in_memory import RecordsInMemory
from producers.seen import Passed, Seen
from tests.builders import enriched, forgotten, user_forgotten


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


def test_who_follows_sees_each_memory_get_newer_only():
    passed, first = Passed(), enriched(memory_id="m", version=3, if_absent=True)
    again = first.model_copy(update={"version": 8})
    revised, late = enriched(memory_id="m", version=5), forgotten("m", version=4)
    assert [passed.is_news(each) for each in (first, first, again)] == [True, False, False]
    assert [passed.is_news(each) for each in (revised, again, late, revised)] == [
        True,
        False,
        False,
        False,
    ]
    assert passed.is_news(forgotten("m", version=6))
    assert passed.is_news(enriched(memory_id="m", version=7))


def test_what_went_with_its_user_is_no_news():
    passed = Passed()
    copies = [user_forgotten(version=5, partition=i, partitions=2) for i in range(2)]
    assert [passed.is_news(copy) for copy in copies] == [True, True]
    assert not passed.is_news(enriched(version=5))
    assert passed.is_news(enriched(version=6))
    assert passed.is_news(enriched(version=1, user_id="bob"))


async def test_each_memory_that_went_with_its_user_is_told_of_once():
    passed, records = Passed(), RecordsInMemory()
    said, mark = [enriched(memory_id=id_, version=3) for id_ in "mn"], user_forgotten(version=5)
    await records.write([*said, mark])
    told = await records.gone_with(mark, "", 9)
    assert [each.memory_id for each in told] == ["m", "n"]
    assert all(passed.is_news(each) for each in (said[0], mark, *told))
    assert not any(passed.is_news(each) for each in (*told, said[1], forgotten("m", version=4)))
    # The user is forgotten once more, and his memories with him.
    later = user_forgotten(version=9)
    await records.write([later])
    assert passed.is_news(later)
    assert not passed.is_news(told[0])
    assert all(passed.is_news(each) for each in await records.gone_with(later, "", 9))


def test_of_many_memories_those_seen_last_are_known():
    passed, events = Passed(most=1), [enriched(), enriched()]
    assert [passed.is_news(each) for each in (*events, events[1], events[0])] == [
        True,
        True,
        False,
        True,
    ]
