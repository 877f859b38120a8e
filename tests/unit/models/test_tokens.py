"""Texts -> windows, and which tokens tell something."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pipeline.errors import Unusable
from pipeline.models.tokens import Tokens, Window
from pipeline.models.weights import locate

PLACE = locate("all-MiniLM-L6-v2").place
assert isinstance(PLACE, Path)
BERT = (PLACE / "tokenizer.json").read_text("utf-8")
TOKENS = Tokens(BERT, max_tokens=256)
PLAIN = Tokenizer.from_str(BERT)
PLAIN.no_truncation()
PLAIN.no_padding()
NARROW = Tokens(BERT, max_tokens=16)
CLS, SEP = 101, 102


def told(window: Window) -> list[str]:
    """The tokens whose vectors are kept."""
    return [PLAIN.id_to_token(window.ids[position]) or "" for position in window.telling]


def test_a_window_begins_and_ends_as_the_model_wants_it() -> None:
    [window] = TOKENS.cut("Lars plays the cello")
    assert list(window.ids) == PLAIN.encode("Lars plays the cello").ids
    assert (window.ids[0], window.ids[-1]) == (CLS, SEP)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The cat sat on the mat.", ["cat", "sat", "mat"]),
        ("You'd like it, Thebes!", ["like", "the", "##bes"]),
        ("We can’t meet at 9:30", ["meet", "9", "30"]),
        ("C++ costs $5.70 (roughly)", ["c", "costs", "5", "70", "roughly"]),
        ("To be, or not to be?", ["to", "be", "or", "not", "to", "be"]),
        ("🎉 ...!", []),
        ("", []),
    ],
)
def test_only_words_that_tell_something_are_kept(text: str, kept: list[str]) -> None:
    [window] = TOKENS.cut(text)
    assert told(window) == kept


def test_a_long_text_becomes_windows_of_even_length() -> None:
    windows = TOKENS.cut("violin " * 600)
    assert [len(window.ids) for window in windows] == [202, 202, 202]


@settings(deadline=None)
@given(st.text(max_size=3000))
def test_windows_hold_every_token_once_and_fit_the_model(text: str) -> None:
    windows = NARROW.cut(text)
    inner = [token for window in windows for token in window.ids[1:-1]]
    assert inner == PLAIN.encode(text, add_special_tokens=False).ids
    assert max(len(window.ids) for window in windows) <= 16


def test_a_lone_surrogate_is_unusable() -> None:
    with pytest.raises(Unusable, match="surrogate"):
        TOKENS.cut("a \ud800 b")


def test_a_tokenizer_that_does_not_split_at_spaces_reads_texts_whole() -> None:
    """Its tokens depend on the spaces: chunks between them would be other tokens."""
    tokenizer = Tokenizer(
        models.WordLevel(vocab={"[UNK]": 0, "▁ana": 1, "▁": 2, "▁the": 3}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    [window] = Tokens(tokenizer.to_str(), max_tokens=64).cut("the  Ana")
    assert list(window.ids) == tokenizer.encode("the  Ana").ids == [3, 2, 1]
    assert list(window.telling) == [2]


def test_a_model_of_lower_case_reads_lower_case() -> None:
    tokenizer = Tokenizer(models.WordLevel(vocab={"[UNK]": 0, "ana": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    [window] = Tokens(tokenizer.to_str(), max_tokens=64, lowercase=True).cut("ANA")
    assert list(window.ids) == [1]
