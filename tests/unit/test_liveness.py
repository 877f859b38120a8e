"""A process is alive while its subscriptions ask for more."""

from pipeline.liveness import Liveness


def test_a_process_is_ready_once_it_has_polled() -> None:
    liveness = Liveness(limit_s=10)
    assert liveness.alive
    assert not liveness.ready
    liveness.polled("classifier")
    assert liveness.ready


def test_one_subscription_without_polls_is_enough_to_be_dead() -> None:
    clock = iter([0.0, 5.0, 11.0, 11.0])
    liveness = Liveness(limit_s=10, now=lambda: next(clock))
    liveness.polled("embedder")
    liveness.polled("query")
    assert not liveness.alive
    assert liveness.poll_age_s() == {"embedder": 11.0, "query": 6.0}
