"""Memories rise by use, fade without it, and end alike however they were heard of."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.tiers import (
    RECENT,
    Life,
    Standing,
    Tiers,
    faded,
    heard,
    lived,
    standing,
    strength_at,
    tier_at,
    tier_of,
    tiered,
    until,
    used,
)
from schemas.events import Lived
from tests.builders import archived, consolidated, recalled, restored

TIERS = Tiers()
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def recalled_every(days: float, times: int) -> Life:
    life = Life()
    for number in range(times):
        life = lived(life, recalled("m", at=BEGIN + number * days * DAY), TIERS)
    return life


@pytest.mark.parametrize(
    ("days", "times", "tier"),
    [
        (1, 1, "short"),
        (1, 2, "medium"),
        (20, 5, "short"),
        (7, 2, "medium"),
        (7, 4, "long"),
        (30, 40, "short"),
        (0.01, 4, "short"),
    ],
)
def test_what_is_recalled_again_and_again_rises(days: float, times: int, tier: str) -> None:
    assert standing(recalled_every(days, times), TIERS).tier == tier


def test_asking_again_within_the_hour_is_no_second_use() -> None:
    once = lived(Life(), recalled("m", at=BEGIN), TIERS)
    assert lived(once, recalled("m", at=BEGIN + timedelta(minutes=59)), TIERS) is once


def test_strength_halves_in_the_half_life_of_its_tier() -> None:
    for tier in ("short", "medium", "long"):
        stood = Standing(tier, 0.9, BEGIN)
        assert faded(stood, BEGIN + TIERS.half_life(tier), TIERS).strength == pytest.approx(0.45)


def test_what_is_never_used_falls_through_the_tiers() -> None:
    stood = Standing("long", 0.9, BEGIN)
    tiers = [faded(stood, BEGIN + days * DAY, TIERS).tier for days in (0, 200, 215, 300)]
    assert tiers == ["long", "long", "medium", "short"]


def test_looking_on_the_way_changes_nothing() -> None:
    stood = Standing("long", 0.9, BEGIN)
    for days in (1, 150, 211, 220, 250):
        between = faded(stood, BEGIN + days * DAY, TIERS)
        end = BEGIN + 400 * DAY
        assert faded(between, end, TIERS).strength == pytest.approx(
            faded(stood, end, TIERS).strength
        )


def test_a_tier_is_left_at_a_lower_strength_than_it_is_reached_at() -> None:
    risen = used(used(Standing(), BEGIN, TIERS), BEGIN + DAY, TIERS)
    assert risen.tier == "medium"
    assert faded(risen, BEGIN + 10 * DAY, TIERS).tier == "medium"


def test_the_ends_of_the_tiers_are_known_beforehand() -> None:
    stood = standing(recalled_every(7, 4), TIERS)
    medium, long = until(stood, TIERS)
    for days in range(0, 400, 3):
        now = stood.at + days * DAY
        assert tier_at(medium, long, now) == faded(stood, now, TIERS).tier


def test_an_earlier_clock_sees_the_strength_of_the_last_use() -> None:
    assert strength_at(Standing("short", 0.5, BEGIN), BEGIN - DAY, TIERS) == 0.5
    assert strength_at(None, BEGIN, TIERS) == 0.0


hours = st.integers(0, 24 * 400)


def events(random: Random, at: list[int]) -> list[Lived]:
    told: list[Lived] = [recalled("m", at=BEGIN + timedelta(hours=hour)) for hour in at]
    for number in range(random.randint(0, 6)):
        version = random.randint(1, 5)
        told.append(
            random.choice(
                [
                    archived("m", version=version, batch=f"{number}"),
                    restored("m", version=version),
                    consolidated("m", "a", "b", version=version),
                    consolidated("m", parted=("a",), version=version),
                ]
            )
        )
    return told


@given(st.lists(hours, max_size=RECENT, unique=True), st.randoms(use_true_random=False))
def test_lives_end_alike_whatever_the_order_and_however_often_they_are_heard_of(
    at: list[int], random: Random
) -> None:
    once = events(random, at)
    again = [*once, *random.choices(once, k=len(once))] if once else []
    random.shuffle(again)
    one, other = Life(), Life()
    for event in once:
        one = heard(one, event, TIERS)
    for event in again:
        other = heard(other, event, TIERS)
    assert (one.uses, one.mark, one.merged) == (other.uses, other.mark, other.merged)
    assert standing(one, TIERS) == standing(other, TIERS)


@given(st.lists(hours, min_size=1, max_size=100), st.integers(0, 20))
def test_a_batch_that_is_repeated_counts_once(at: list[int], back: int) -> None:
    told = [recalled("m", at=BEGIN + timedelta(hours=hour)) for hour in sorted(at)]
    once, twice = Life(), Life()
    for event in told:
        once = lived(once, event, TIERS)
    for event in (*told, *told[-back:]):
        twice = lived(twice, event, TIERS)
    assert once == twice


def test_old_uses_are_settled_and_count_as_before() -> None:
    life = recalled_every(2, 3 * RECENT)
    stood = Standing()
    for number in range(3 * RECENT):
        stood = used(stood, BEGIN + 2 * number * DAY, TIERS)
    assert len(life.uses) == RECENT
    assert standing(life, TIERS) == stood


def test_what_is_said_anew_is_not_archived_any_more() -> None:
    away = archived("m", version=10)
    told = tiered(lived(Life(), away, TIERS), away, TIERS)
    assert tier_of(told, 10, BEGIN) == "archived"
    assert tier_of(told, 11, BEGIN) == "short"


@pytest.mark.parametrize("there", [-100, 60], ids=["archived", "said anew"])
def test_a_plain_state_is_newer_than_one_that_yields_whatever_the_clocks(there: int) -> None:
    """The word on a state that yields is heard while that is there, or after what won over it."""
    away = archived("m", version=110, of_version=100)
    told = tiered(lived(Life(), away, TIERS, there), away, TIERS)
    assert tier_of(told, -100, BEGIN) == "archived"
    assert tier_of(told, 60, BEGIN) == "short"


@pytest.mark.parametrize("there", [100, 50])
def test_a_plain_state_that_is_archived_takes_those_that_yield_along(there: int) -> None:
    away = archived("m", version=100)
    told = tiered(lived(Life(), away, TIERS, there), away, TIERS)
    assert [tier_of(told, each, BEGIN) for each in (-200, 50, 100, 101)] == ["archived"] * 3 + [
        "short"
    ]


def test_the_life_of_an_archived_memory_goes_on() -> None:
    life = recalled_every(7, 4)
    life = lived(life, archived("m", version=1, into="n"), TIERS)
    back = restored("m", version=2)
    assert tiered(life, back, TIERS).into == "n"
    told = tiered(lived(life, back, TIERS), back, TIERS)
    assert (told.tier, told.archived_version, told.into) == ("long", None, None)


def test_each_change_of_a_life_has_a_greater_version() -> None:
    versions = [recalled_every(1, times).version for times in range(1, 8)]
    assert sorted(set(versions)) == versions


@pytest.mark.parametrize("wrong", [{"long_half_life_days": 0}, {"recalled_hits": 11}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"half-lives|recalled_hits"):
        Tiers(**wrong)  # pyright: ignore[reportArgumentType]
