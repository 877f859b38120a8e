"""Mem0's platform, asked through its own client: patient, within its rate limits, never guessing.

Every call waits its turn after a `Retry-After`, of any of them. What may pass is tried again; an answer
that is not what was asked for counts as none. "There is no such memory" is believed only in Mem0's words.
"""

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import structlog

from pipeline import metrics
from pipeline.errors import Refused, Unavailable
from pipeline.sources.mem0 import Observed, Page, observed, retry_after_s

if TYPE_CHECKING:
    from mem0 import AsyncMemoryClient

log = structlog.get_logger(__name__)

TIMEOUT_S = 60.0
ATTEMPTS = 6
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
EVERYBODY = [{name: "*"} for name in ("user_id", "agent_id", "app_id", "run_id")]
_LIMITED = (429, 503)
WAITING = "waiting for Mem0"
"""What the log says where a request is tried again, with the reason; `status` reads it there."""

Answered = TypeVar("Answered")


class Passing(Exception):
    """Something that may have passed in a moment."""


class Turns:
    """When the next request may go out: one limit for all, which outlives the client."""

    def __init__(self) -> None:
        self._go_on_at = 0.0
        """On the loop's clock."""

    async def wait(self) -> None:
        """Waits for as long as any answer has asked for."""
        while True:
            left_s = self.left_s()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)

    def left_s(self) -> float:
        """How long to wait still."""
        return max(0.0, self._go_on_at - asyncio.get_running_loop().time())

    def heed(self, answered: httpx.Response) -> None:
        """`Retry-After`, of any answer that limits us: the client keeps some kinds of it to itself."""
        if answered.status_code not in _LIMITED:
            return
        metrics.MEM0_LIMITED.inc()
        wait_s = retry_after_s(answered.headers.get("retry-after"), datetime.now(UTC))
        if wait_s is not None:
            now = asyncio.get_running_loop().time()
            self._go_on_at = max(self._go_on_at, now + wait_s)


class Mem0Api:
    """What the poller asks of Mem0. Not for several projects at once."""

    def __init__(self, client: "AsyncMemoryClient", turns: Turns) -> None:
        self.requests = 0
        self._turns = turns
        self.client = client
        self._first_pause_s = FIRST_PAUSE_S
        client.async_client.event_hooks["response"].append(self._note)

    def hurry(self, first_pause_s: float = 0.02) -> None:
        """Tries again sooner than one should ask a platform of others to bear: for tests."""
        self._first_pause_s = first_pause_s

    async def project(self) -> str:
        """The id of the project that the key belongs to. Raises Unavailable, Refused."""

        async def ask() -> str:
            answered = await self.client.async_client.get("/v1/ping/")
            answered.raise_for_status()
            return str(answered.json()["project_id"])

        return await self._patiently(ask)

    async def page(self, number: int, *, size: int, since: datetime | None) -> Page | None:
        """A page of all rows with `updated_at` >= `since`. Raises Unavailable, Refused."""
        filters: dict[str, Any] = {"OR": EVERYBODY}
        if since is not None:
            # An OR beside other conditions is dropped without a word: within an AND it counts.
            filters = {"AND": [filters, {"updated_at": {"gte": since.isoformat()}}]}

        async def ask() -> Page | None:
            from mem0.exceptions import MemoryNotFoundError

            try:
                answered = await self.client.get_all(
                    filters=filters, page=number, page_size=size, show_expired=True
                )
            except MemoryNotFoundError as error:
                if "invalid page" in str(error).lower():
                    return None
                raise Passing(f"it has no such path: {error}") from error
            return page_of(answered)

        return await self._patiently(ask)

    async def count(self) -> int:
        """How many memories there are. Raises Unavailable, Refused."""
        page = await self.page(1, size=1, since=None)
        return page.count if page else 0

    async def find(self, memory_id: str) -> Observed | None:
        """One memory; None where Mem0 says that there is none. Raises Unavailable, Refused."""

        async def ask() -> Observed | None:
            from mem0.exceptions import MemoryNotFoundError

            try:
                answered: Any = await self.client.get(memory_id)
            except MemoryNotFoundError as error:
                if says_gone(error.details):
                    return None
                raise Passing(f"it has no such path: {error}") from error
            return memory_of(answered)

        return await self._patiently(ask)

    async def tells_deletion(self, memory_id: str) -> bool:
        """Whether the memory's history ends with its deletion. Raises Unavailable, Refused."""

        async def ask() -> bool:
            from mem0.exceptions import MemoryNotFoundError

            try:
                told: Any = await self.client.history(memory_id)
            except MemoryNotFoundError:
                return False
            return ends_with_deletion(told)

        return await self._patiently(ask)

    async def _patiently(self, ask: Callable[[], Awaitable[Answered]]) -> Answered:
        for attempt in range(ATTEMPTS):
            await self._turns.wait()
            try:
                return await ask()
            except Exception as error:
                why = remedy(error)
                pause_s = self._pause_s(attempt)
                if attempt + 1 == ATTEMPTS:
                    raise Unavailable(f"Mem0 does not answer as it should: {why}") from error
                told_s = max(pause_s, self._turns.left_s())
                log.warning(WAITING, reason=why, pause_s=round(told_s, 1))
                await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _pause_s(self, attempt: int) -> float:
        longest = min(LONGEST_PAUSE_S, self._first_pause_s * 2**attempt)
        return random.uniform(longest / 2, longest)  # noqa: S311 - no secret

    async def _note(self, answered: httpx.Response) -> None:
        self.requests += 1
        self._turns.heed(answered)


def page_of(answered: Any) -> Page:
    """The page that was answered. Raises Passing where it is none."""
    try:
        rows, count, following = answered["results"], answered["count"], answered["next"]
        return Page([observed(row) for row in rows], int(count), more=following is not None)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Passing(f"an answer that is no page of memories ({error})") from error


def memory_of(answered: Any) -> Observed:
    """The memory that was answered. Raises Passing where it is none."""
    try:
        return observed(answered)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Passing(f"an answer that is no memory ({error})") from error


def ends_with_deletion(answered: Any) -> bool:
    """Whether a history, the oldest first, has a deletion and nothing after it. Raises Passing."""
    try:
        events = [entry["event"] for entry in answered]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Passing(f"an answer that is no history ({error})") from error
    return events[-1:] == ["DELETE"]


def says_gone(details: Any) -> bool:
    """Whether a 404 is Mem0's word that there is no such memory, and not some proxy's."""
    return isinstance(details, dict) and "memory not found" in str(details.get("error", "")).lower()


def remedy(error: Exception) -> str:
    """What passes, in words. Raises Refused for what does not, and a bug as it is."""
    from mem0 import exceptions

    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    if isinstance(error, exceptions.AuthenticationError) or status in (401, 403):
        raise Refused(
            "Mem0 does not accept MEM0_API_KEY: it has expired, was revoked, or is another host's "
            "(MEM0_HOST). Nothing was changed. Set a valid one and start it again."
        ) from error
    if isinstance(error, exceptions.MemoryError):
        return f"{error.error_code}: {error.message[:200]}"
    if status in _LIMITED:
        return "it limits requests for a moment" if status == 429 else "it is busy (503)"
    if status is not None:
        return f"it answered {status}"
    if isinstance(error, json.JSONDecodeError):
        return "an answer that is no JSON"
    if isinstance(error, Passing | httpx.HTTPError | KeyError | ValueError | TypeError):
        return f"{type(error).__name__}: {str(error)[:200]}"
    raise error


@asynccontextmanager
async def opened(
    api_key: str, host: str, home: Path, turns: Turns | None = None
) -> AsyncGenerator[Mem0Api]:
    """Mem0 at `host`; the client keeps what it must keep below `home`. Raises Unavailable, Refused."""
    turns = turns or Turns()
    silence(home)
    from mem0 import AsyncMemoryClient

    http = httpx.AsyncClient(base_url=host.rstrip("/"), timeout=TIMEOUT_S)
    async with http:
        await _check(http, api_key, turns)
        # Its constructor asks once more, and blocks while it does.
        try:
            client = await asyncio.to_thread(AsyncMemoryClient, api_key, host.rstrip("/"), http)
        except (ValueError, OSError) as error:
            no_json = isinstance(error, json.JSONDecodeError)
            why = "an answer that is no JSON" if no_json else error
            raise Unavailable(f"Mem0 at {host} does not answer as it should: {why}") from error
        yield Mem0Api(client, turns)


def silence(home: Path) -> None:
    """Before mem0 is imported: no telemetry, and nothing written to the home folder."""
    os.environ["MEM0_TELEMETRY"] = "False"
    os.environ.setdefault("MEM0_DIR", str(home))
    # It calls every answer but 200 an error, even one to "is it gone?". We tell what matters.
    logging.getLogger("mem0").setLevel(logging.CRITICAL)


async def _check(http: httpx.AsyncClient, api_key: str, turns: Turns) -> None:
    try:
        answered = await _greeted(http, api_key, turns)
        answered.raise_for_status()
        if not answered.json().get("project_id"):
            raise Unavailable(f"{http.base_url} answers, but not as Mem0 does: check MEM0_HOST.")
    except httpx.HTTPStatusError as error:
        raise Unavailable(f"Mem0 at {http.base_url}: {remedy(error)}") from error
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"Mem0 at {http.base_url} does not answer: {why}") from error
    except (ValueError, AttributeError) as error:
        raise Unavailable(
            f"{http.base_url} answers, but not in JSON as Mem0 does: check MEM0_HOST."
        ) from error


async def _greeted(http: httpx.AsyncClient, api_key: str, turns: Turns) -> httpx.Response:
    """The first answer that asks for no pause, or the last of several that do."""
    for attempt in range(ATTEMPTS):
        await turns.wait()
        answered = await http.get("/v1/ping/", headers={"Authorization": f"Token {api_key}"})
        turns.heed(answered)
        left_s = turns.left_s()
        if left_s == 0 or attempt + 1 == ATTEMPTS:
            return answered
        why = f"it limits requests: next try in {left_s:.0f} s"
        log.warning(WAITING, reason=why)
    raise AssertionError("the last attempt returns")
