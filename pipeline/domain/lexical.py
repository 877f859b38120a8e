"""A memory and a question as weighted terms, so that the index can match them word by word (BM25).

BM25's weight of a term has two factors. This module gives the one that depends on the memory alone: how
often the term occurs, saturated, against the memory's length. The other, how rare the term is, is the
index's to know and is applied when it searches (Qdrant's IDF modifier). A score is then a dot product.

The texts said just before and after count too, at a part of their frequency: "the second of June" answers nothing
without "when is your exam?". They are mixed in before saturation, which keeps a word that is only
repeated from being counted thrice, and into the length too: else a short answer, filled with the words
before it, would pass for a long text's worth of matches.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import Final, Protocol, cast
from unicodedata import normalize

import mmh3
import regex
import Stemmer

from pipeline.domain.wording import worded_for_terms
from schemas.events import MemoryState, SparseVector

K1: Final = 1.5
B: Final = 0.75
AVERAGE_TERMS: Final = 40.0
"""Length of a usual memory in terms, its context mixed in: conversations lie below, phone records above.

A constant, so that a weight never depends on other memories; recall is flat from 30 to 80.
"""
BESIDE_WEIGHTS: Final = (0.5, 0.25)
"""What a term of a text said before or after counts, the nearest first."""
MAX_WORD_CHARS: Final = 64
"""Longer ones are keys, hashes or addresses: their beginning tells them apart."""
MEMO_WORDS: Final = 2**16

# Months stay terms, `may` among them. Negations go: a memory and its denial answer the same question.
_STOP_WORDS_IN_LINES: Final = """
a an the this that these those some any each every either neither such same own other another
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself
it its itself we us our ours ourselves they them their theirs themselves one ones
who whom whose which what when where why how
and or but nor so yet if then else than because as until while although though whether unless
of at by for with about against between into through during before after above below to from up
down in out on off over under again further once within without upon per via
am is are was were be been being have has had having do does did doing done
will would shall should can could might must ought
not no only very too also just even ever still there here now
s t d m ll re ve o y l
i'm i'd i'll i've you're you'd you'll you've he's he'd he'll she's she'd she'll it's it'd it'll
we're we'd we'll we've they're they'd they'll they've that's that'd that'll there's there'd here's
what's who's who'd who'll where's when's why's how's let's
isn't aren't wasn't weren't haven't hasn't hadn't don't doesn't didn't won't wouldn't shan't
shouldn't can't cannot couldn't mightn't mustn't needn't ain't
"""
STOP_WORDS: Final = frozenset(_STOP_WORDS_IN_LINES.split())
"""English words that say too little to be matched, lower case; contractions with a straight apostrophe."""

# Scripts that put no spaces between words, and the signs that lengthen or repeat a character in them.
_SPACELESS_CHARACTERS: Final = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー々"
)
_SPACED_CHARACTERS: Final = rf"[\p{{L}}\p{{M}}\p{{N}}]--[{_SPACELESS_CHARACTERS}]"
_ASCII_WORDS: Final = regex.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")
_WORDS: Final = regex.compile(
    rf"[{_SPACELESS_CHARACTERS}]+|[{_SPACED_CHARACTERS}]+(?:['’][{_SPACED_CHARACTERS}]+)*",
    regex.VERSION1,
)
_SPACELESS: Final = regex.compile(rf"[{_SPACELESS_CHARACTERS}]")
_UNSEEN: Final = dict.fromkeys(map(ord, "\u00ad\u034f\u200d\u2060\ufeff"))
"""Within a word, and no part of it: where it may be broken, or what joins its characters."""
_ORDINAL: Final = regex.compile(r"([0-9]{1,2})(?:st|nd|rd|th)")


class _Stems(Protocol):
    def stemWord(self, word: str) -> str: ...  # noqa: N802 - the library's name


class _Stemmers(threading.local):
    """One a thread: a Snowball stemmer keeps state while it works."""

    def __init__(self) -> None:
        # Its own memo is off: ours, below, holds the hashed stem and is shared.
        self.english = cast("_Stems", Stemmer.Stemmer("english", 0))  # pyright: ignore[reportUnknownMemberType]


_stemmers = _Stemmers()


def lexical_vector(state: MemoryState) -> SparseVector:
    """The terms of a memory, its speaker and its day, with BM25's weights but for the IDF.

    `indices` are sorted 32-bit hashes; `values` lie above 0 and below k1 + 1. Robertson and Zaragoza,
    The Probabilistic Relevance Framework: BM25 and Beyond (2009).
    """
    # Without speaker and day: the memory's own are there, and others' only blur (measured).
    weighted = [(worded_for_terms(state), 1.0)]
    for side in (reversed(state.preceding), state.following):
        weighted += zip((said.text for said in side), BESIDE_WEIGHTS, strict=False)
    frequencies: dict[int, float] = {}
    for text, weight in weighted:
        for term in _terms(text):
            frequencies[term] = frequencies.get(term, 0.0) + weight
    length = sum(frequencies.values())
    room = K1 * (1 - B + B * length / AVERAGE_TERMS)
    return _sparse({term: tf * (K1 + 1) / (tf + room) for term, tf in frequencies.items()})


def question_terms(text: str) -> SparseVector:
    """The distinct terms of a question, each with weight 1; none where it has stop words only."""
    return _sparse(dict.fromkeys(_terms(text), 1.0))


def lexical_terms(text: str) -> frozenset[int]:
    """The distinct terms of a text; none where it has stop words only."""
    return frozenset(_terms(text))


def question_words(question: str) -> Mapping[str, Sequence[int]]:
    """The distinct words of a question, in its order, and the terms of each."""
    return {word: terms for word in _words(question) if (terms := _terms_of(word))}


def shared_words(words: Mapping[str, Sequence[int]], text: str) -> tuple[str, ...]:
    """Those of `question_words` that a text has, in any of their forms."""
    there = set(_terms(text))
    return tuple(word for word, terms in words.items() if not there.isdisjoint(terms))


def _sparse(weights: dict[int, float]) -> SparseVector:
    indices = sorted(weights)
    return SparseVector(indices=tuple(indices), values=tuple(weights[index] for index in indices))


def _terms(text: str) -> Iterable[int]:
    return chain.from_iterable(map(_terms_of, _words(text)))


def _words(text: str) -> Iterable[str]:
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    runs = _WORDS.findall(folded(text))
    return chain.from_iterable(_bigrams(run) if _SPACELESS.match(run) else (run,) for run in runs)


def folded(text: str) -> str:
    """A text as words of it are compared: however its characters are put together, and in whatever case."""
    return normalize("NFKC", text.translate(_UNSEEN)).casefold()


def is_spaceless(word: str) -> bool:
    """Whether it is in a script that puts no spaces between words."""
    return _SPACELESS.match(word) is not None


def _bigrams(run: str) -> Iterable[str]:
    """`東京都` as `東京` and `京都`; a character by itself as it is."""
    return (run,) if len(run) == 1 else map("".join, pairwise(run))


def _terms_of(word: str) -> tuple[int, ...]:
    """The hashed stems of one word: none of a stop word, two of `o'brien`, one of `15th` and `15`."""
    # A word may be a whole text long: 65,536 of those would take gigabytes.
    return _kept_terms_of(word) if len(word) <= MAX_WORD_CHARS else _read_terms_of(word)


def _read_terms_of(word: str) -> tuple[int, ...]:
    word = word.replace("’", "'")
    if word in STOP_WORDS:
        return ()
    if ordinal := _ORDINAL.fullmatch(word):
        word = ordinal[1]
    parts = [part[:MAX_WORD_CHARS] for part in word.split("'") if part not in STOP_WORDS]
    return tuple(mmh3.hash(_stemmers.english.stemWord(part), signed=False) for part in parts)


_kept_terms_of = lru_cache(maxsize=MEMO_WORDS)(_read_terms_of)
