"""What the record and the index promise alike, every adapter of both."""

from pipeline.domain.identity import content_hash, event_id_of, memory_key, user_key
from pipeline.domain.versions import Known, Stamp, stamp
from pipeline.ports import Fingerprint
from schemas.events import MemoryEnriched
from tests.builders import enriched, fingerprints, forgotten, named, user_forgotten
from tests.contract.conftest import Store

# Writing and forgetting


async def test_an_empty_batch_changes_nothing(store: Store) -> None:
    assert await store.write([]) == []
    assert await store.count() == 0


async def test_the_greatest_forgetting_of_a_user_counts(store: Store) -> None:
    assert await store.write([user_forgotten(version=10)]) == ["stored"]
    assert await store.write([user_forgotten(version=5)]) == ["superseded"]
    assert await store.write([enriched(version=7)]) == ["forgotten"]
    assert await store.write([enriched(version=11)]) == ["stored"]


# What became of an event


async def test_an_event_is_stored_while_its_state_is_held(store: Store) -> None:
    old, held, newer = (enriched(memory_id="m", version=v) for v in (1, 5, 9))
    unknown, users = enriched(version=5), user_forgotten(version=3)
    await store.write([held])
    events = [old, held, newer, unknown, users]
    assert await store.outcomes("alice", [named(event) for event in events]) == [
        "superseded",
        "stored",
        None,
        None,
        None,
    ]
    await store.write([newer])
    assert await store.outcomes("alice", [named(held), named(newer)]) == ["superseded", "stored"]
    assert await store.outcomes("bob", [named(held)]) == [None]
    assert await store.outcomes("alice", []) == []


async def test_what_was_forgotten_since_is_told_as_forgotten(store: Store) -> None:
    gone, left_out, users = (
        forgotten("m", version=5),
        enriched(version=8),
        user_forgotten(version=9),
    )
    said, later = enriched(memory_id="m", version=4), enriched(version=10)
    await store.write([said, gone])
    asked = [named(event) for event in (said, gone, users)]
    assert await store.outcomes("alice", asked) == ["forgotten", "stored", None]
    await store.write([users])
    asked = [named(event) for event in (gone, users, left_out, later)]
    assert await store.outcomes("alice", asked) == ["forgotten", "stored", "forgotten", None]


async def test_a_repetition_under_a_key_is_told_as_superseded(store: Store) -> None:
    first = enriched(memory_id="m", version=5, if_absent=True)
    again = first.model_copy(update={"version": 50})
    await store.write([first, again])
    asked = [named(first), named(again)]
    assert await store.outcomes("alice", asked) == ["stored", "superseded"]
    await store.write([forgotten("m", version=60)])
    assert await store.outcomes("alice", asked) == ["forgotten", "forgotten"]


async def test_an_old_key_brings_nothing_back_and_a_new_one_is_a_new_memory(
    store: Store,
) -> None:
    def remembered(key: str, version: int) -> MemoryEnriched:
        event_id = event_id_of("alice", key)
        return enriched(
            key, memory_id=str(event_id), event_id=event_id, version=version, if_absent=True
        )

    await store.write([remembered("old", 1), user_forgotten(version=2)])
    outcomes = await store.write([remembered("old", 3), remembered("new", 4)])
    assert outcomes == ["forgotten", "stored"]
    assert await store.count("alice") == 1


# What is compared


async def test_fingerprints_tell_every_memory_and_tombstone_in_the_order_of_their_keys(
    store: Store,
) -> None:
    kept = [enriched(f"memory {i}", user_id=user) for i in range(600) for user in ("alice", "bob")]
    gone = forgotten("gone")
    await store.write([*kept, gone, user_forgotten("carol")])
    told = await fingerprints(store)
    assert {each.key: (each.known, each.content_hash) for each in told} == {
        **{
            memory_key(memory.user_id, memory.memory_id): (
                Known(stamp(memory)),
                content_hash(memory),
            )
            for memory in kept
        },
        memory_key("alice", "gone"): (Known(stamp(gone), forgotten=True), ""),
    }
    assert [each.key for each in told] == sorted(each.key for each in told)


async def test_pages_tell_all_in_the_order_of_their_keys_watermarks_too(
    store: Store,
) -> None:
    kept = [enriched(f"memory {i}", user_id=user) for i in range(600) for user in ("alice", "bob")]
    mark = user_forgotten("carol", version=7)
    await store.write([*kept, forgotten("gone"), mark])
    told: list[Fingerprint] = []
    while page := await store.page(told[-1].key if told else None, 500):
        assert len(page) == 500 or len(told) + len(page) == 1_202
        told += page
    assert [each.key for each in told] == sorted(each.key for each in told)
    assert {each.key for each in told if not each.watermark} == {
        memory_key("alice", "gone"),
        *(memory_key(memory.user_id, memory.memory_id) for memory in kept),
    }
    watermark = Fingerprint(user_key("carol"), Known(Stamp(7, 0), forgotten=True), "", True)
    assert [each for each in told if each.watermark] == [watermark]


async def test_fingerprints_are_told_of_those_that_are_there(store: Store) -> None:
    kept, other = enriched(), enriched()
    await store.write([kept, other, forgotten("gone"), user_forgotten("carol", version=7)])
    keys = [
        memory_key("alice", kept.memory_id),
        memory_key("alice", "gone"),
        memory_key("alice", "never there"),
        user_key("carol"),
    ]
    told = await store.fingerprints_of(keys)
    assert {each.key for each in told} == {keys[0], keys[1], keys[3]}
    assert {each.key for each in told if each.watermark} == {keys[3]}
    assert await store.fingerprints_of([]) == []
