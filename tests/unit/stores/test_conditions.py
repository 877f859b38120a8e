"""What is asked, without what is asked of some fields, leaves out nothing that fits."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.identity import memory_key
from pipeline.stores.conditions import Condition, Every, Is, Not, Some, holds, without

_leaves = st.builds(Is, st.sampled_from(["speaker", "domain", "topics"]), st.sampled_from("ab"))
_conditions = st.recursive(
    _leaves,
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, max_size=3).map(lambda some: Every(tuple(some)))
        | st.lists(inner, max_size=3).map(lambda some: Some(tuple(some)))
    ),
    max_leaves=8,
)
_payloads = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from("ab") for name in ("speaker", "domain", "topics")}
)


@given(_conditions, _payloads)
def test_asking_nothing_of_some_fields_leaves_out_nothing_that_fits(
    condition: Condition, payload: dict[str, str]
) -> None:
    key = memory_key("alice", "m")
    less = without(condition, ["domain", "topics"])
    known = {name: value for name, value in payload.items() if name == "speaker"}
    assert holds(less, key, known) or not holds(condition, key, payload)
    assert without(condition, ()) == condition
    assert holds(less, key, known) == holds(less, key, payload)


def test_what_is_asked_of_other_fields_is_still_asked() -> None:
    asked = Every((Is("domain", "coding"), Is("speaker", "Ana"), Not(Is("topics", "food"))))
    assert without(asked, ["domain", "topics"]) == Every(
        (Every(()), Is("speaker", "Ana"), Not(Some(())))
    )
