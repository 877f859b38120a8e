"""A time that a question names, with a beginning and an end.

On the walls of whoever asks: what came in an event is told by UTC's clock, and compared with that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, MINYEAR, datetime, timedelta
from typing import Final

from dateutil.relativedelta import relativedelta

YEARS: Final = 10
"""So many are looked through, from the next one back, where a question says "in May" and not of which year.
Words find what is older."""

_MOMENT: Final = timedelta.resolution


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` until before `until`, as clocks on walls show it, whatever their time zone."""

    since: datetime
    until: datetime
    every_year: bool = False
    """Whether the question did not say of which year."""
    ago: bool = False
    """Whether it is counted back from the asker's clock: "yesterday", "last week"."""

    def holds(self, moment: datetime) -> bool:
        """Whether the moment lies within, by the clock of the zone it carries: what came in an event, UTC's."""
        at = moment.replace(tzinfo=None)
        if not self.every_year:
            return self.since <= at < self.until
        years = (self.since.year - at.year, self.until.year - at.year)
        return any(self.since <= at + relativedelta(years=each) < self.until for each in years)

    def each_year(self) -> Sequence["Period"]:
        """Where the question did not say of which year: that of each of YEARS, the next one first. Else itself."""
        if not self.every_year:
            return (self,)
        years = [relativedelta(years=1 - back) for back in range(YEARS)]
        calendar = range(MINYEAR, MAXYEAR + 1)
        return [
            replace(self, since=self.since + each, until=self._ends(each), every_year=False)
            for each in years
            if self.since.year + each.years in calendar and self.until.year + each.years in calendar
        ]

    def _ends(self, later: relativedelta) -> datetime:
        # A day that ends where a 29 February begins ends with its own day in other years.
        return max(self.until + later, self.until - _MOMENT + later + _MOMENT)
