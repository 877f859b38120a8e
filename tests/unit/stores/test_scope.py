"""No condition reaches beyond one user."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Refused
from pipeline.stores.conditions import Every, Is
from pipeline.stores.points import MEMORY
from pipeline.stores.scope import counted, erased_by, searched
from schemas.search import SearchFilter
from tests.builders import user_forgotten

NOW = datetime(2026, 5, 1, tzinfo=UTC)

storable = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
filters = st.builds(
    SearchFilter,
    domain=st.sampled_from([None, "coding"]),
    topics=st.sampled_from([(), ("a",)]),
    occurred_from=st.sampled_from([None, "2026-05-01T12:00:00Z"]),
    speaker=st.sampled_from([None, "bob"]),
    metadata=st.dictionaries(storable, st.integers(-9, 9) | st.booleans() | storable, max_size=3),
)


@given(filters)
def test_every_search_is_within_one_user(filter: SearchFilter) -> None:
    where = searched("alice", filter, NOW)
    assert where.conditions[0] == Every((Is("user_id", "alice"), Is("kind", MEMORY)))


@pytest.mark.parametrize("nobody", ["", "  "])
def test_no_condition_is_built_without_a_user(nobody: str) -> None:
    for build in (
        lambda: searched(nobody, SearchFilter(speaker="bob"), NOW),
        lambda: counted(nobody),
        lambda: erased_by(user_forgotten().model_copy(update={"user_id": nobody})),
    ):
        with pytest.raises(Refused):
            build()
