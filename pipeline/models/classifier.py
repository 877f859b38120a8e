"""What a text is about, by the words in it.

`topics.toml` says which words speak for which topic, which domain and which kind of importance, and how
loudly. The lists are compiled once into a table from a word to what it says; a text is then read once, word
by word. Nothing to download, nothing to wait for, and the same text is always about the same. A text in
another language than English is about nothing in particular, unless it borrows the words.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import chain
from math import prod
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from pipeline.ports import Classification
from schemas.events import Domain

MAX_TOPICS: Final = 3
ENOUGH: Final = 1.0
"""Points from which a text is about a topic, or belongs to a domain."""
SHARE_OF_BEST: Final = 0.4
"""A topic this far below the best one is only mentioned in passing."""
STRONG, PLAIN, HINT = 2.0, 1.0, 0.4
"""Points of an entry, by the list it stands in. Two hints alone are not enough for anything."""
USUAL_IMPORTANCE: Final = 0.3
QUESTION_IMPORTANCE: Final = 0.2
SMALL_TALK_IMPORTANCE: Final = 0.1
SMALL_TALK_WORDS: Final = 12
"""Longer texts say something, however politely they begin."""

_WORD: Final = re.compile(r"[^\W_]+(?:\+\+|#)?")
# What only code looks like: `quoted`, call(), snake_case, maxPoolSize, a::b, =>, --flag, module.py.
# Each begins with a sign that is rare in prose: the search skips from one to the next.
_CODE: Final = re.compile(
    r"`|(?<=\w)\(\)|(?<=[A-Za-z0-9])_[A-Za-z0-9]|(?<=[a-z])[A-Z][a-z]+[A-Z][a-z]"
    r"|(?<=\w)::\w|=>|(?<=\s)--[a-z]"
    r"|(?<=\w)\.(?:py|js|ts|tsx|go|rs|java|sql|ya?ml|json|toml|sh|cpp)\b"
)
# A time, a date or a year: 9:30, 8th, 10am, 2026, 2026-05-08.
_MOMENT: Final = re.compile(r"\d(?::\d\d|(?:st|nd|rd|th|am|pm)\b)|20\d\d\b")
_QUESTION_MARKS: Final = ("?", "？", "؟")

Kind = Literal["topic", "domain", "importance", "small talk"]


class Words(BaseModel):
    """Entries separated by commas, by how loudly they speak."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strong: str = ""
    words: str = ""
    hints: str = ""

    def phrases(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """The words of each entry, and its points."""
        for entries, points in ((self.strong, STRONG), (self.words, PLAIN), (self.hints, HINT)):
            for entry in entries.split(","):
                if phrase := tuple(_WORD.findall(entry.casefold())):
                    yield phrase, points


class TopicWords(Words):
    """What speaks for one topic."""

    domain: Domain
    about: str


class RaisingWords(Words):
    """What speaks for one kind of importance."""

    raises: float = Field(gt=0, lt=1)


class Lexicon(BaseModel):
    """The word lists, as they stand in `topics.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: dict[str, TopicWords]
    domains: dict[Domain, Words]
    importance: dict[str, RaisingWords]
    small_talk: Words
    misleading: Words


class Sign(NamedTuple):
    """Something that a word speaks for."""

    kind: Kind
    name: str


Says = Sequence[tuple[Sign, float]]
"""What an entry speaks for, and with how many points."""
Table = Mapping[str, Sequence[tuple[Sequence[str], Says]]]
"""By first word: the words that must follow it, the longest phrase first, and what the entry says."""
Heard = Mapping[Kind, Mapping[str, float]]
"""The points of each sign in a text, by kind and name, in the order they were met."""


@cache
def lexicon() -> Lexicon:
    """The word lists of this package."""
    toml = resources.files("pipeline.models").joinpath("topics.toml").read_text(encoding="utf-8")
    return Lexicon.model_validate(tomllib.loads(toml))


TOPICS: Final[Mapping[str, str]] = MappingProxyType(
    {label: topic.about for label, topic in lexicon().topics.items()}
)
"""Every topic that a text can be about, and what it means in a few words."""


class HeuristicClassifier:
    """A `Classifier` by word lists. It keeps no state, so threads may share it."""

    def __init__(self, words: Lexicon | None = None) -> None:
        words = words or lexicon()
        self._subjects = compiled(_subjects(words), words.misleading)
        self._manners = compiled(_manners(words))
        self._raises = {name: kind.raises for name, kind in words.importance.items()}

    def classify(self, texts: Sequence[str]) -> Sequence[Classification]:
        """One classification a text, in order. Texts of any length and script are taken."""
        return [self._classify(text) for text in texts]

    def _classify(self, text: str) -> Classification:
        folded = text.casefold()
        words = _WORD.findall(folded)
        heard = read(words, self._subjects, self._manners)
        return Classification(
            domain=likeliest(heard["domain"], looks_like_code(text)),
            topics=leading(heard["topic"]),
            importance=self._importance(folded, words, heard),
        )

    def _importance(self, text: str, words: Sequence[str], heard: Heard) -> float:
        kinds = set(heard["importance"])
        if _MOMENT.search(text):
            kinds.add("date")
        if not kinds and len(words) <= SMALL_TALK_WORDS and heard["small talk"]:
            return SMALL_TALK_IMPORTANCE
        asks = text.rstrip().endswith(_QUESTION_MARKS)
        missing = 1 - (QUESTION_IMPORTANCE if asks else USUAL_IMPORTANCE)
        return round(1 - missing * prod(1 - self._raises[kind] for kind in sorted(kinds)), 2)


def compiled(signs: Iterable[tuple[Sign, Words]], silent: Words | None = None) -> Table:
    """The table to read by. An entry's inflections stand in it unless the lists say something of them."""
    listed: dict[tuple[str, ...], dict[Sign, float]] = {}
    for sign, entries in signs:
        for phrase, points in entries.phrases():
            says = listed.setdefault(phrase, {})
            says[sign] = max(points, says.get(sign, 0.0))
    listed |= {phrase: {} for phrase, _ in (silent or Words()).phrases()}
    everything: dict[tuple[str, ...], Says] = {
        phrase: tuple(says.items()) for phrase, says in listed.items()
    }
    for phrase in listed:
        for form in inflections(phrase[-1]):
            everything.setdefault((*phrase[:-1], form), everything[phrase])
    table: dict[str, list[tuple[Sequence[str], Says]]] = {}
    for phrase in sorted(everything, key=len, reverse=True):
        table.setdefault(phrase[0], []).append((list(phrase[1:]), everything[phrase]))
    return table


def _subjects(words: Lexicon) -> Iterator[tuple[Sign, Words]]:
    for label, topic in words.topics.items():
        yield Sign("topic", label), topic
        # A word that speaks for two topics of one domain speaks for the domain once.
        yield Sign("domain", topic.domain), topic
    for domain, signs in words.domains.items():
        yield Sign("domain", domain), signs


def _manners(words: Lexicon) -> Iterator[tuple[Sign, Words]]:
    for kind, raising in words.importance.items():
        yield Sign("importance", kind), raising
    yield Sign("small talk", ""), words.small_talk


def inflections(word: str) -> Iterable[str]:
    """The -s, -ed and -ing of an English word; some are no words, and are never met."""
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return ()
    if word.endswith("y") and word[-2] not in "aeiou":
        return (word[:-1] + "ies", word[:-1] + "ied", word + "ing")
    if word.endswith("e"):
        return (word + "s", word + "d", word[:-1] + "ing")
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return (word + "es", word + "ed", word + "ing")
    doubled = word + word[-1]
    return (word + "s", word + "ed", word + "ing", doubled + "ed", doubled + "ing")


def read(words: Sequence[str], *tables: Table) -> Heard:
    """What a text's words say together; each entry counts once, however often it occurs.

    A phrase hides its words from its own table only: "allergic to peanuts" is food, and important.
    """
    heard: dict[Kind, dict[str, float]] = {
        "topic": {},
        "domain": {},
        "importance": {},
        "small talk": {},
    }
    spoken = chain.from_iterable(_spoken(words, table) for table in tables)
    for (kind, name), points in chain.from_iterable(spoken):
        of_kind = heard[kind]
        of_kind[name] = of_kind.get(name, 0.0) + points
    return heard


def _spoken(words: Sequence[str], table: Table) -> Iterable[Says]:
    """The distinct entries of a text, in the order they were met. A phrase takes all its words."""
    found: dict[int, Says] = {}
    taken_until = 0
    for place, word in enumerate(words):
        entries = table.get(word)
        if entries is None or place < taken_until:
            continue
        for rest, says in entries:
            if not rest:
                found[id(says)] = says
            elif words[place + 1 : (end := place + 1 + len(rest))] == rest:
                found[id(says)] = says
                taken_until = end
                break
    return found.values()


def likeliest(domains: Mapping[str, float], is_code: bool) -> Domain:
    """The domain with the most points; `other` where there is little to go by."""
    points: dict[Domain, float] = {
        "coding": domains.get("coding", 0.0) + ENOUGH * is_code,
        "business": domains.get("business", 0.0),
        "other": domains.get("other", 0.0),
    }
    best = max(points, key=points.__getitem__)
    return best if points[best] >= ENOUGH else "other"


def looks_like_code(text: str) -> bool:
    """Whether a text quotes code, a path or a command."""
    return _CODE.search(text) is not None


def leading(topics: Mapping[str, float]) -> tuple[str, ...]:
    """The few topics that a text is about, most telling first; equal ones as they were met."""
    if not topics:
        return ()
    ranked = sorted(topics, key=topics.__getitem__, reverse=True)[:MAX_TOPICS]
    floor = max(ENOUGH, SHARE_OF_BEST * topics[ranked[0]])
    return tuple(label for label in ranked if topics[label] >= floor)
