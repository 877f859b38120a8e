"""An address that cannot be one is told by its form, before anybody connects."""

import pytest

from pipeline.kafka.addresses import bootstrap_servers


@pytest.mark.parametrize(
    "given", ["localhost:9092", "a.example:9092,b.example:9093", "127.0.0.1:1, [::1]:65535"]
)
def test_an_address_is_taken_as_it_is(given: str) -> None:
    assert bootstrap_servers(given) == given


@pytest.mark.parametrize(
    "given",
    ["", "localhost", "localhost:abc", "localhost:0", "a:65536", "a:1,,b:1", "http://a:1", None, 9],
)
def test_anything_else_is_told_the_form(given: object) -> None:
    with pytest.raises(ValueError, match=r"host:port\[,host:port\]"):
        bootstrap_servers(given)


def test_what_was_given_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="no address") as caught:
        bootstrap_servers("https://user:secret@kafka.example")
    assert "secret" not in str(caught.value)
