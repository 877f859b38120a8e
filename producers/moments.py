"""When something happened, as an application says it: a `datetime` with its zone, or text in ISO 8601.

Text without an offset is UTC, as on the command line and in a file that is imported: whoever writes "2026-05-01"
has no zone in mind, and every door reads it alike. A `datetime` without a zone is refused instead: it is what
`datetime.now()` gives, the clock on this wall, and taking that for UTC would be hours off and say nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import BeforeValidator

from schemas.events import Utc
from schemas.filters import moment_in


def moment(given: Any) -> Any:
    """The moment that a text is; anything else, and a text that is none, as it was given: to be refused by name."""
    return (moment_in(given) or given) if isinstance(given, str) else given


def moments(given: Any, *names: str) -> Any:
    """A mapping with the moments under these names; anything else as it was given."""
    if not isinstance(given, Mapping):
        return given
    fields = cast("Mapping[str, Any]", given)
    return {name: moment(of) if name in names else of for name, of in fields.items()}


Moment = Annotated[Utc, BeforeValidator(moment)]
GivenMoment = datetime | str
"""What an application may say it with."""
