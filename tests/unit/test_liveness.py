"""A process is alive while its subscriptions ask for more."""

from pipeline.liveness import Liveness


class Clock:
    """Time as a test wants it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def poll(liveness: Liveness, name: str) -> None:
    with liveness.polling(name):
        pass


def test_a_process_is_ready_once_it_has_polled() -> None:
    liveness = Liveness(limit_s=10)
    assert liveness.alive
    assert liveness.state == "starting"
    poll(liveness, "classifier")
    assert liveness.state == "ready"


def test_one_subscription_without_polls_is_enough_to_be_dead() -> None:
    clock = Clock()
    liveness = Liveness(limit_s=10, now=clock)
    poll(liveness, "embedder")
    clock.now = 5.0
    poll(liveness, "query")
    clock.now = 11.0
    assert not liveness.alive
    assert liveness.state == "stuck"
    assert liveness.poll_age_s() == {"embedder": 11.0, "query": 6.0}


def test_who_may_pause_longer_is_not_dead() -> None:
    clock = Clock()
    liveness = Liveness(limit_s=10, now=clock)
    liveness.allow("mem0", 100)
    for name in ("mem0", "embedder"):
        poll(liveness, name)
    clock.now = 9.0
    poll(liveness, "embedder")
    clock.now = 18.0
    assert liveness.alive
    clock.now = 101.0
    poll(liveness, "embedder")
    assert not liveness.alive


def test_a_desk_that_waits_for_a_question_is_alive() -> None:
    clock = Clock()
    liveness = Liveness(limit_s=10, now=clock)
    with liveness.polling("query"):
        clock.now = 1_000.0
        assert liveness.state == "ready"


def test_who_polls_and_comes_to_nothing_is_degraded() -> None:
    liveness = Liveness()
    poll(liveness, "record_writer")
    liveness.troubles["record_writer"] = "PostgreSQL does not answer"
    assert liveness.alive
    assert liveness.state == "degraded"
