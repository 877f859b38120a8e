"""A few bad messages are theirs; when most fail, the fault is ours."""

from pipeline.kafka.dead_letters import DeadLetterLimit


def test_a_few_bad_messages_are_allowed() -> None:
    limit = DeadLetterLimit(window=100, least=10)
    for _ in range(50):
        assert not limit.exceeded_by(failed=2, used=8)
        limit.count(failed=2, used=8)


def test_most_messages_failing_is_too_much() -> None:
    limit = DeadLetterLimit(window=100, least=10)
    assert not limit.exceeded_by(failed=9, used=0)
    limit.count(failed=9, used=0)
    assert limit.exceeded_by(failed=9, used=0)


def test_a_batch_that_comes_back_has_not_failed_again() -> None:
    limit = DeadLetterLimit(window=100, least=10)
    assert not any(limit.exceeded_by(failed=1, used=0) for _ in range(50))


def test_what_failed_long_ago_is_forgotten() -> None:
    limit = DeadLetterLimit(window=100, least=10)
    limit.count(failed=100, used=0)
    assert not limit.exceeded_by(failed=0, used=60)
