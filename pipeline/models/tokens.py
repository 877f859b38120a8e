"""Texts -> windows that a model can read, and which of their tokens tell something.

A model reads at most `max_tokens`; a longer text is cut into windows of even length, so that none is a
scrap. Of each window the tokens are marked whose vectors are worth keeping: not [CLS] and its like, not
punctuation, not stop words. A text that has nothing but stop words keeps them: they are all it says.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from pipeline.domain.lexical import STOP_WORDS
from pipeline.errors import Unusable

Ints = NDArray[np.int64]

MEMO_CHUNKS: Final = 2**16
MEMO_CHUNK_CHARS: Final = 32
"""Longer chunks are addresses, hashes or another script's whole sentences: they do not come again."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one forward pass reads of a text."""

    ids: Ints
    """Token ids, special tokens included."""
    telling: NDArray[np.intp]
    """Positions in `ids` of the tokens whose vectors are kept; may be empty."""


class _Pieces(NamedTuple):
    """The tokens of a text or of a part of it."""

    ids: tuple[int, ...]
    content: tuple[bool, ...]
    """Whether the token's word tells something."""
    words: tuple[bool, ...]
    """Whether it is a word at all, not punctuation."""


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
        self._split_at_spaces = _reads_word_by_word(tokenizer)
        self._known = lru_cache(maxsize=MEMO_CHUNKS)(self._tokenized)

    def cut(self, text: str) -> list[Window]:
        """The windows of a text, at least one. Raises Unusable on a lone surrogate."""
        pieces = self._pieces(text.lower() if self._lowercase else text)
        telling = pieces.content if any(pieces.content) else pieces.words
        count = max(1, -(-len(pieces.ids) // self._capacity))
        bounds = [len(pieces.ids) * i // count for i in range(count + 1)]
        return [
            Window(
                ids=np.array([*self._before, *pieces.ids[start:end], *self._after], dtype=np.int64),
                telling=np.flatnonzero(telling[start:end]) + len(self._before),
            )
            for start, end in pairwise(bounds)
        ]

    def _pieces(self, text: str) -> _Pieces:
        if not self._split_at_spaces:
            return self._tokenized(text)
        ids, content, words = list[int](), list[bool](), list[bool]()
        for chunk in text.split(" "):
            known = self._known(chunk) if len(chunk) <= MEMO_CHUNK_CHARS else self._tokenized(chunk)
            ids += known.ids
            content += known.content
            words += known.words
        return _Pieces(tuple(ids), tuple(content), tuple(words))

    def _tokenized(self, text: str) -> _Pieces:
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except TypeError as error:
            raise Unusable("the text is not valid Unicode: it holds a lone surrogate") from error
        words = _words(encoding, text)
        return _Pieces(
            tuple(encoding.ids), tuple(map(_is_content, words)), tuple(map(_is_word, words))
        )


def _reads_word_by_word(tokenizer: str) -> bool:
    """Whether a text's tokens are those of its chunks between spaces, one after the other.

    So it is with BERT's way of splitting. Chunks repeat, and a chunk that was seen before costs a tenth
    of tokenizing it: the tokenizer is no longer a tenth of the whole work.
    """
    described = json.loads(tokenizer)
    kinds = [(described.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer")]
    return kinds == ["BertNormalizer", "BertPreTokenizer"]


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the model wants to read before and after a text."""
    sample = tokenizer.encode("a")
    special = sample.special_tokens_mask
    return sample.ids[: special.index(0)], sample.ids[len(special) - special[::-1].index(0) :]


def _words(encoding: Encoding, text: str) -> list[str]:
    """For each token, the whole word that it is part of."""
    word_ids = [-1 - i if word is None else word for i, word in enumerate(encoding.word_ids)]
    spans = dict[int, tuple[int, int]]()
    for word, (start, end) in zip(word_ids, encoding.offsets, strict=True):
        first, _ = spans.get(word, (start, end))
        spans[word] = (first, end)
    names = {word: text[start:end] for word, (start, end) in spans.items()}
    return [names[word] for word in word_ids]


def _is_content(word: str) -> bool:
    return _is_word(word) and word.strip().lower().replace("’", "'") not in STOP_WORDS


def _is_word(word: str) -> bool:
    return any(character.isalnum() for character in word)
