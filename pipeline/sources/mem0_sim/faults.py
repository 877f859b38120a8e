"""What goes wrong with a request, drawn by seed: the same seed, the same faults."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate

KINDS = ("rate_seconds", "rate_date", "busy_seconds", "busy_date", "broken", "gateway", "no_json")


@dataclass(frozen=True)
class Fault:
    """An answer in place of the right one. The request was not carried out."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Faults:
    """Draws a fault for a share of the requests."""

    chance: random.Random
    share: float = 0.0
    kinds: tuple[str, ...] = KINDS
    retry_after_s: int = 1
    clock: Callable[[], float] = lambda: 0.0

    def draw(self) -> Fault | None:
        """What happens to the next request; None: nothing."""
        if self.chance.random() >= self.share:
            return None
        return self.made(self.chance.choice(self.kinds))

    def made(self, kind: str) -> Fault:
        """A fault of this kind."""
        as_json = {"content-type": "application/json"}
        date = formatdate(self.clock() + self.retry_after_s + 1, usegmt=True)
        match kind:
            case "rate_seconds" | "rate_date":
                after = date if kind == "rate_date" else str(self.retry_after_s)
                body = b'{"detail":"Request was throttled."}'
                return Fault(429, body, as_json | {"retry-after": after})
            case "busy_seconds" | "busy_date":
                after = date if kind == "busy_date" else str(self.retry_after_s)
                return Fault(503, b"busy", {"content-type": "text/plain", "retry-after": after})
            case "broken":
                return Fault(500, b'{"detail":"Internal server error"}', as_json)
            case "gateway":
                page = b"<html><body>502 Bad Gateway</body></html>"
                return Fault(502, page, {"content-type": "text/html"})
            case "no_json":
                page = b"<html><body>Just a moment...</body></html>"
                return Fault(200, page, {"content-type": "text/html"})
            case _:
                raise ValueError(f"There is no fault {kind}: there are {', '.join(KINDS)}.")
