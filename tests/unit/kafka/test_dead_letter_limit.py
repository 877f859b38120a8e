"""A few bad messages are theirs; when most fail, the fault is ours."""

from pipeline.kafka.dead_letters import DeadLetterLimit


def test_a_few_bad_messages_are_allowed() -> None:
    limit = DeadLetterLimit(window=100)
    for _ in range(50):
        assert not limit.exceeded_by(failed=2, used=8)
        limit.count(failed=2, used=8)


def test_most_messages_failing_is_too_much() -> None:
    limit = DeadLetterLimit(window=100)
    assert not limit.exceeded_by(failed=50, used=0)
    limit.count(failed=50, used=0)
    assert limit.exceeded_by(failed=1, used=0)


def test_a_stage_that_has_just_started_is_not_judged_by_its_first_messages() -> None:
    limit = DeadLetterLimit()
    assert not limit.exceeded_by(failed=256, used=0)
    limit.count(failed=256, used=0)
    assert limit.failing == 1
    assert not limit.exceeded_by(failed=44, used=212)
    assert limit.exceeded_by(failed=256, used=0)


def test_a_share_of_one_is_never_exceeded() -> None:
    limit = DeadLetterLimit(window=10, share=1)
    assert not limit.exceeded_by(failed=256, used=0)


def test_a_batch_that_comes_back_has_not_failed_again() -> None:
    limit = DeadLetterLimit(window=100)
    assert not any(limit.exceeded_by(failed=50, used=0) for _ in range(50))


def test_what_failed_long_ago_is_forgotten() -> None:
    limit = DeadLetterLimit(window=100)
    limit.count(failed=100, used=0)
    assert not limit.exceeded_by(failed=0, used=60)
