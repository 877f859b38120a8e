"""The plan of a chaos run: the same for the same seed, and with everything in it."""

from collections import Counter

import pytest

from pipeline.chaos.plan import DISK, PART_MANNERS, ROLES, WEIGHTS, ChaosPlan, Step, planned


def names(plan: ChaosPlan) -> Counter[str]:
    return Counter(fault.name for fault in plan.faults)


def steps(plan: ChaosPlan) -> list[Step]:
    return [step for part in plan.slices for step in part]


def test_the_same_seed_is_the_same_plan() -> None:
    assert planned(7, events=500) == planned(7, events=500)
    assert planned(7, events=500) != planned(8, events=500)


def test_another_number_of_events_leaves_the_faults_as_they_are() -> None:
    assert planned(7, events=500).faults == planned(7, events=900).faults


def test_every_role_is_killed_three_times() -> None:
    told = names(planned(1, events=1_000))
    assert {role: told[f"{role} killed"] for role in ROLES} == dict.fromkeys(ROLES, 3)


def test_every_server_is_met_by_every_manner_and_the_disk_is_full_once() -> None:
    told = names(planned(1, events=1_000))
    for part in ("kafka", "postgres", "valkey"):
        assert {manner: told[f"{part} {manner}"] for manner in PART_MANNERS} == dict.fromkeys(
            PART_MANNERS, 1
        )
    assert told[f"{DISK} full"] == 1


def test_of_three_brokers_each_is_killed() -> None:
    told = names(planned(1, events=1_000, brokers=3))
    assert all(told[f"{node} killed"] for node in ("kafka", "kafka-2", "kafka-3"))


@pytest.mark.parametrize("seed", range(20))
def test_the_brief_form_has_each_role_each_manner_and_each_server(seed: int) -> None:
    faults = planned(seed, events=1_000, brief=True).faults
    assert {fault.manner for fault in faults} == {*PART_MANNERS, "full"}
    assert {fault.target for fault in faults} == {*ROLES, "kafka", "postgres", "valkey", DISK}
    assert len(faults) == len(ROLES) + len(PART_MANNERS) + 1


def test_each_fault_has_its_slice_of_all_events() -> None:
    plan = planned(3, events=1_003)
    assert len(plan.slices) == len(plan.faults)
    assert [step.number for step in steps(plan)] == list(range(1_003))
    assert plan.events == 1_003


@pytest.mark.parametrize("seed", range(10))
def test_all_that_can_happen_to_a_memory_happens(seed: int) -> None:
    assert {step.kind for step in steps(planned(seed, events=3_000))} == set(WEIGHTS)


@pytest.mark.parametrize("seed", range(10))
def test_a_step_is_only_about_what_is_there(seed: int) -> None:
    alive: dict[str, set[str]] = {}
    keys: set[tuple[str, str]] = set()
    raw: dict[int, str] = {}
    for step in steps(planned(seed, events=3_000)):
        mine = alive.setdefault(step.user_id, set())
        match step.kind:
            case "captured" | "raw" | "strange":
                mine.add(step.memory_id)
                raw[step.number] = step.memory_id
            case "overwritten" | "revised":
                assert step.memory_id in mine
            case "forgotten":
                mine.remove(step.memory_id)
            case "user forgotten":
                mine.clear()
            case "keyed":
                keys.add((step.user_id, str(step.key)))
            case "repeated":
                assert (step.user_id, str(step.key)) in keys
            case "again":
                assert raw[step.of or 0] == step.memory_id
            case _:
                continue


def test_questions_are_asked_of_users_who_have_something() -> None:
    has: set[str] = set()
    for step in steps(planned(1, events=3_000)):
        assert step.kind != "asked" or step.user_id in has
        if step.kind in ("captured", "raw", "strange"):
            has.add(step.user_id)


def test_no_two_states_say_the_same() -> None:
    said = [step for step in steps(planned(1, events=3_000)) if step.kind != "asked"]
    texts = [step.text for step in said if step.text]
    assert len(set(texts)) == len(texts)


def test_a_memory_stays_in_its_conversation_and_conversations_have_a_few() -> None:
    runs: dict[str, str | None] = {}
    for step in steps(planned(1, events=3_000)):
        if step.memory_id and step.kind not in ("again", "forgotten", "refused"):
            assert runs.setdefault(step.memory_id, step.run_id) == step.run_id
    sizes = Counter(run_id for run_id in runs.values() if run_id)
    assert max(sizes.values()) > 3
    assert 0.2 < sizes.total() / len(runs) < 0.5
