"""Texts -> windows that a model can read, and which of their tokens tell something.

A model reads at most `max_tokens`; a longer text is cut into windows of even length, so that none is a
scrap. Of each window the tokens are marked whose vectors are worth keeping: not [CLS] and its like, not
punctuation, not stop words. A text that has nothing but stop words keeps them: they are all it says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline.domain.lexical import STOP_WORDS
from pipeline.errors import Unusable

Ints = NDArray[np.int64]

TEXTS_AT_ONCE: Final = 256
"""The tokenizer's own objects are large: they live only for this many texts."""
# What tokenizers that split at the apostrophe leave of contractions; `s`, `t` and such are stop words.
_CONTRACTION_STEMS: Final = frozenset(
    "ain aren couldn didn doesn don hadn hasn haven isn mustn needn shan shouldn wasn weren wouldn".split()
)


@dataclass(frozen=True, slots=True)
class Window:
    """What one forward pass reads of a text."""

    ids: Ints
    """Token ids, special tokens included."""
    telling: NDArray[np.intp]
    """Positions in `ids` of the tokens whose vectors are kept; may be empty."""


class Tokens:
    """A model's tokenizer. Safe to use from several threads at once."""

    def __init__(self, tokenizer: str, *, max_tokens: int, lowercase: bool = False) -> None:
        """`tokenizer` is the content of a tokenizer.json; `max_tokens` counts special tokens too."""
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lowercase = lowercase
        self._before, self._after = _special_tokens(self._tokenizer)
        self._capacity = max_tokens - len(self._before) - len(self._after)

    def cut(self, texts: Sequence[str]) -> list[list[Window]]:
        """The windows of each text, at least one a text. Raises Unusable on a lone surrogate."""
        return [
            windows
            for start in range(0, len(texts), TEXTS_AT_ONCE)
            for windows in self._cut(texts[start : start + TEXTS_AT_ONCE])
        ]

    def _cut(self, texts: Sequence[str]) -> list[list[Window]]:
        texts = [text.lower() if self._lowercase else text for text in texts]
        try:
            encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        except TypeError as error:
            raise Unusable(
                "a text is not valid Unicode (a lone surrogate?): it has no tokens"
            ) from error
        return [
            self._windows(encoding, text) for encoding, text in zip(encodings, texts, strict=True)
        ]

    def _windows(self, encoding: Encoding, text: str) -> list[Window]:
        ids, telling = encoding.ids, _telling(encoding, text)
        count = max(1, -(-len(ids) // self._capacity))
        bounds = [len(ids) * i // count for i in range(count + 1)]
        return [
            Window(
                ids=np.array([*self._before, *ids[start:end], *self._after], dtype=np.int64),
                telling=np.flatnonzero(telling[start:end]) + len(self._before),
            )
            for start, end in zip(bounds, bounds[1:], strict=False)
        ]


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the model wants to read before and after a text."""
    sample = tokenizer.encode("a")
    runs = [
        (special, [token for _, token in run])
        for special, run in groupby(
            zip(sample.special_tokens_mask, sample.ids, strict=True), key=lambda pair: pair[0]
        )
    ]
    before = runs[0][1] if runs[0][0] else []
    after = runs[-1][1] if runs[-1][0] else []
    return before, after


def _telling(encoding: Encoding, text: str) -> NDArray[np.bool_]:
    """For each token, whether the word that it belongs to tells something."""
    words = _words(encoding, text)
    content = np.fromiter(map(_is_content, words), dtype=np.bool_, count=len(words))
    if content.any():
        return content
    return np.fromiter(map(_is_word, words), dtype=np.bool_, count=len(words))


def _words(encoding: Encoding, text: str) -> list[str]:
    """For each token, the whole word that it is part of."""
    offsets, spans = encoding.offsets, dict[int, tuple[int, int]]()
    word_ids = [-1 - i if word is None else word for i, word in enumerate(encoding.word_ids)]
    for word, (start, end) in zip(word_ids, offsets, strict=True):
        first, _ = spans.get(word, (start, end))
        spans[word] = (first, end)
    names = {word: text[start:end] for word, (start, end) in spans.items()}
    return [names[word] for word in word_ids]


@lru_cache(maxsize=2**15)
def _is_content(word: str) -> bool:
    plain = word.strip().lower().replace("’", "'")
    return _is_word(word) and plain not in STOP_WORDS and plain not in _CONTRACTION_STEMS


@lru_cache(maxsize=2**15)
def _is_word(word: str) -> bool:
    return any(character.isalnum() for character in word)
