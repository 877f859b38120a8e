"""An event loop in virtual time, with processes that die and pause between any two awaits.

Nothing waits: when no callback is ready, time jumps to the next timer. Callbacks run in their order, so a
run is decided by its random numbers alone. What a process awaits belongs to it by its context; when it is
dead its callbacks are dropped, as after SIGKILL, and when it is paused they are kept, as after SIGSTOP.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")

OWNER: ContextVar["Process | None"] = ContextVar("owner", default=None)


class Stuck(AssertionError):
    """Something waits that will never come."""


class Process:
    """Whoever may be killed or paused."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.parked: list[asyncio.Handle] = []

    @property
    def context(self) -> Context:
        """A context in which everything that is started belongs to this process."""
        context = copy_context()
        context.run(OWNER.set, self)
        return context


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as code without sockets needs; anything else is not implemented."""

    def __init__(self, before: Callable[[Process], None], thread_s: Callable[[], float]) -> None:
        self.steps = 0
        self.errors: list[BaseException] = []
        self._before, self._thread_s = before, thread_s
        self._now = 0.0
        self._ready: deque[tuple[Process | None, asyncio.Handle]] = deque()
        self._timers: list[tuple[float, int, Process | None, asyncio.TimerHandle]] = []
        self._order = count()
        self._tasks: list[asyncio.Task[Any]] = []
        self._outside = copy_context()

    @contextmanager
    def running(self) -> Generator[None]:
        """Makes this the running loop; ends whatever is left of it after the block."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            self._before = _nothing
            for task in self._tasks:
                if not task.done():
                    with suppress(RuntimeError):
                        task.get_coro().close()  # type: ignore[union-attr]
            asyncio._set_running_loop(None)

    def run(self, main: Coroutine[Any, Any, T], *, within_s: float, steps: int) -> T:
        """Runs until `main` is done. Raises Stuck when it takes longer, in virtual time or in steps."""
        task = self.create_task(main, context=self._outside)
        end_s, most = self._now + within_s, self.steps + steps
        while not task.done():
            if self._now > end_s or self.steps > most:
                raise Stuck(f"not done after {self._now:.0f} s and {self.steps} steps")
            self._step()
        return task.result()

    def _step(self) -> None:
        if not self._ready:
            self._advance()
        owner, handle = self._ready.popleft()
        if handle.cancelled():
            return
        self.steps += 1
        if owner is not None:
            self._before(owner)
            if owner.dead:
                return
            if owner.paused:
                owner.parked.append(handle)
                return
        handle._run()  # pyright: ignore[reportPrivateUsage]

    def _advance(self) -> None:
        if not self._timers:
            raise Stuck("nothing is ready, and nothing will be")
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            _, _, owner, timer = heappop(self._timers)
            self._ready.append((owner, timer))

    def outside(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Calls back later, whoever is alive by then: what goes on in other machines."""
        self.call_at(self._now + delay_s, callback, *args, context=self._outside)

    def resume(self, process: Process) -> None:
        """After SIGCONT."""
        process.paused = False
        self._ready.extend((process, handle) for handle in process.parked)
        process.parked.clear()

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((_owner(context), handle))
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._order), _owner(context), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        task = asyncio.Task[Any](coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """The work is done at once; who waits for it learns of it later."""
        future = self.create_future()
        try:
            self.outside(self._thread_s(), _set, future, func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # What a killed process leaves pending is no error.
        if "pending" not in context["message"] and "exception" in context:
            self.errors.append(context["exception"])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when their time comes."""


def _owner(context: Context | None) -> Process | None:
    return OWNER.get() if context is None else context.get(OWNER)


def _set(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _nothing(_: Process) -> None:
    pass
