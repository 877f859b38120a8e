"""Requests to neighbours: each takes its time, some fail before, some after, some are done too late.

A request that is on its way is done whether or not its sender still lives.
"""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from pipeline.errors import Unavailable
from tests.simulation.loop import VirtualLoop
from tests.simulation.weather import Weather

T = TypeVar("T")


class Network:
    """Where time passes and things go wrong."""

    def __init__(self, loop: VirtualLoop, random: Random, weather: Weather) -> None:
        self.loop, self.random, self.weather = loop, random, weather
        self.in_flight = 0

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def delay_s(self) -> float:
        """Milliseconds; or seconds; or longer than a session lasts."""
        if self.happens(self.weather.slow):
            return self.random.choice([0.5, 5.0, 40.0]) * self.random.random()
        return 0.004 * self.random.random()

    async def request(
        self,
        work: Callable[[], T],
        *,
        failed: Callable[[], Exception] = lambda: Unavailable("does not answer"),
        partly: Callable[[], object] = lambda: None,
        dropped: Callable[[], bool] = lambda: False,
    ) -> T:
        """What `work` returns, once the neighbour has done it. Raises `failed()` in bad weather.

        `partly` is what a request that fails may have done; `dropped` whether it never arrived.
        """
        answer: asyncio.Future[T] = self.loop.create_future()
        fate = self._fate()

        def arrive() -> None:
            self.in_flight -= 1
            if not dropped():
                reply(done())

        def done() -> Any:
            if fate == "refuse":
                partly()
                return failed()
            try:
                result = work()
            except Exception as error:
                return error
            return failed() if fate == "deny" else result

        def reply(result: Any) -> None:
            self.loop.outside(self.delay_s(), settle, answer, result)

        if fate == "late":
            reply(failed())
        self.in_flight += 1
        self.loop.outside(
            self.delay_s() + (self.random.uniform(0, 30) if fate == "late" else 0), arrive
        )
        return await answer

    def _fate(self) -> str:
        weather = self.weather
        for fate, probability in (
            ("refuse", weather.refuse),
            ("deny", weather.deny),
            ("late", weather.late),
        ):
            if self.happens(probability):
                return fate
        return "done"


def settle(answer: asyncio.Future[Any], result: Any) -> None:
    """Answers who is still waiting."""
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing: the twins of the stores."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits for something")
