"""What a search's `filter` may be given as, and the one form of it that is asked.

The flat form says what most need; conditions that nest say the rest. Who asks need not know which is which.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.domain.telling import told
from pipeline.errors import Refused
from producers.moments import moments
from schemas.filters import Where
from schemas.search import SearchFilter

_FLAT_ONLY = {"occurred_from", "occurred_until", "tiers"}
"""What the flat form of a filter knows and the nested one says otherwise."""


def narrowed(filter: SearchFilter | Where | Mapping[str, Any] | None) -> SearchFilter:
    """The flat form where it is one; what that cannot say is said in the nested one."""
    if isinstance(filter, Where):
        return SearchFilter(where=filter)
    given = moments(filter, "occurred_from", "occurred_until")
    try:
        return SearchFilter.model_validate({} if given is None else given)
    except ValidationError as error:
        if not isinstance(given, Mapping) or "where" in given or given.keys() <= _FLAT_ONLY:
            raise Refused(told(error, "filter")) from error
    flat = {name: value for name, value in given.items() if name in _FLAT_ONLY}
    nested = {name: value for name, value in given.items() if name not in _FLAT_ONLY}
    try:
        return SearchFilter(**flat, where=Where.model_validate(nested))
    except ValidationError as error:
        raise Refused(told(error, "filter")) from error
