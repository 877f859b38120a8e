"""One event that somebody waits for: what was heard of it, what the stores say, and what is missing still."""

import asyncio
from collections.abc import Callable, Sequence

from pipeline.domain.receipts import STORES, Store, summed
from pipeline.errors import Unusable
from producers.receipts import AnyReceipt, Part
from schemas.events import MemoryRedriven, MemorySetAside, MemoryStored, Outcome, Stored, UserErased
from schemas.search import ReceiptState


def raising(_: AnyReceipt, error: Unusable) -> None:
    """Who waits for several receipts and says nothing else is told of the first that is set aside."""
    raise error


class Watch:
    """One event that somebody waits for."""

    def __init__(self, receipt: AnyReceipt) -> None:
        self.receipt = receipt
        self.missing = receipt.parts
        self._outcomes: dict[Store, Outcome] = {}
        self.was_told = False
        """Whether the stores themselves were asked when all was done."""
        self.set_aside: MemorySetAside | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(self, notice: Stored) -> None:
        """Takes in what a stage, or a dead letter, says of it."""
        match notice:
            case MemorySetAside():
                self.set_aside = notice
            case MemoryRedriven():
                self.set_aside = None
            case UserErased():
                self._strike({(notice.store, notice.partition)})
            case MemoryStored():
                # Another publishing under the same idempotency key has an outcome of its own.
                if notice.version == self.receipt.version:
                    self._outcomes[notice.store] = notice.outcome
                    self._strike({(notice.store, 0)})

    def learn(self, state: ReceiptState) -> None:
        """Takes in what the stores say of it."""
        if state.outcome is not None:
            self.was_told = True
            self._outcomes = dict.fromkeys(STORES, state.outcome)
        known = {"record": state.record, "index": state.index}
        self._strike({part for part in self.missing if known[part[0]]})

    @property
    def outcome(self) -> Outcome | None:
        """What became of the event, as it was heard last; None where it was set aside."""
        if not self.done.done() or self.done.exception() is not None:
            return None
        # The forgetting of a user is done once it holds.
        return summed(self._outcomes.values()) if self._outcomes else "stored"

    def give_up(self) -> None:
        """Believes the dead letter."""
        if self.set_aside is not None and not self.done.done():
            told = f"It went to the dead letters at {self.set_aside.stage}: {self.set_aside.reason}"
            self.done.set_exception(Unusable(told))
            # Whoever waits for many receipts may not look at each of them.
            self.done.exception()

    def _strike(self, parts: set[Part]) -> None:
        self.missing -= parts
        if not self.missing and not self.done.done():
            self.done.set_result(None)


def still_pending(
    watches: Sequence[Watch], on_set_aside: Callable[[AnyReceipt, Unusable], None]
) -> list[Watch]:
    """Who is still waited for. Tells what went wrong with the others, if anything did."""
    pending: list[Watch] = []
    for watch in watches:
        if not watch.done.done():
            pending.append(watch)
        elif isinstance(error := watch.done.exception(), Unusable):
            on_set_aside(watch.receipt, error)
    return pending


def late(pending: Sequence[Watch], of: int, timeout_s: float) -> str:
    """What is said to who has waited in vain."""
    missing = sorted({store for watch in pending for store, _ in watch.missing})
    return (
        f"{len(pending)} of {of} not stored within {timeout_s:g} s; the {' and the '.join(missing)} "
        "did not say so yet. Nothing is lost: wait again, or see `hybrid-memory status`."
    )
