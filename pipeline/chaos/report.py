"""What a chaos run says of itself: each moment while it goes on, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.chaos.checking import Verdict
from pipeline.chaos.plan import ChaosPlan, Fault


@dataclass(frozen=True)
class Moment:
    """What goes on now, for whoever watches."""

    published: int
    of: int
    doing: str
    strikes: bool = False
    """A fault is on from now."""
    fault: int = 0
    """Which of `faults` it is, from 1; 0 before the first."""
    faults: int = 0


@dataclass(frozen=True)
class Strike:
    """One fault as it happened."""

    fault: Fault
    in_flight: int
    """Calls and records that were under way in what it struck; 0: it hit nothing."""
    at_s: float
    """Since the first event was published."""


@dataclass(frozen=True)
class Report:
    """How a run ended."""

    plan: ChaosPlan
    strikes: Sequence[Strike]
    skipped: Sequence[str]
    verdict: Verdict
    published: int
    answered: int
    """Questions; what they told first was recalled."""
    unanswered: int
    refused: Sequence[str]
    """Why a call was refused that was right."""
    lag: Mapping[str, int]
    """What was left at the end; 0 everywhere unless a stage stood still."""
    differing: Mapping[str, int]
    """What `verify` found to mend, and how often."""
    took_s: float

    @property
    def hollow(self) -> list[str]:
        """Faults that never hit anything in flight: they proved nothing."""
        tried = {strike.fault.name for strike in self.strikes}
        hit = {strike.fault.name for strike in self.strikes if strike.in_flight}
        return sorted(tried - hit)

    @property
    def ok(self) -> bool:
        wrong = self.verdict.findings or self.refused or self.hollow
        return not wrong and not any(self.lag.values()) and not self.differing
