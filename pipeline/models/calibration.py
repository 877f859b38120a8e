"""Made-up memories, the same on every machine: what int8 is calibrated on and backends are measured with.

Sentences of many kinds and lengths (chat, notes, messages, code, dates, prices, names of many places,
some other languages), so that the ranges of the activations are those of real memories.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

CALIBRATION_SEED: Final = 1
MEASURING_SEED: Final = 2

_SLOTS: Final[dict[str, Sequence[str]]] = {
    "who": (
        "Ana", "Wei", "Priya", "Tomasz", "my sister", "Dr. Okafor", "the landlord", "Yuki", "Fatima",
        "our product manager", "Lars Eriksen", "grandma", "Mr. Castellanos", "the new intern", "Noor",
    ),
    "place": (
        "Lisbon", "the office", "a small café by the river", "Nairobi", "Shenzhen", "the gym",
        "room 4B", "my parents' house", "São Paulo", "the dentist", "Gate 22", "Reykjavík", "the lab",
    ),
    "when": (
        "on 14 March 2024", "next Tuesday at 9:30", "last summer", "yesterday", "in Q3", "at noon",
        "on the second weekend of May", "2023-11-05 18:40", "every other Friday", "after lunch",
        "in the winter of 2019", "before the deadline",
    ),
    "food": (
        "spicy Thai food", "oat milk", "sourdough bread", "sushi", "peanuts", "dark chocolate",
        "lentil soup", "espresso", "jollof rice", "anything with coriander", "pierogi",
    ),
    "hobby": (
        "trail running", "the cello", "pottery", "chess", "bird watching", "rock climbing",
        "restoring old radios", "salsa", "gardening", "street photography", "Go",
    ),
    "tool": (
        "PostgreSQL", "TypeScript", "Kafka", "pytest", "Docker Compose", "Rust", "pandas", "Terraform",
        "the CI pipeline", "React", "Redis", "a bash script", "gRPC", "the linter",
    ),
    "fault": (
        "times out after 30 seconds", "returns 502", "leaks memory", "fails with KeyError: 'user_id'",
        "is 40% slower than before", "drops every tenth message", "ignores the time zone",
    ),
    "business": (
        "the renewal with Halden & Co.", "the Q2 budget", "the pricing page", "our churn rate",
        "the hiring plan", "invoice #20418", "the merger talks", "the supplier contract",
        "the onboarding survey", "the trade fair",
    ),
    "amount": (
        "€1,250", "12%", "three", "$4.7 million", "250 kg", "18", "half", "¥30,000", "2.5 hours",
        "about a dozen", "1,024",
    ),
    "feeling": (
        "excited", "worried", "relieved", "a bit tired", "proud", "annoyed", "curious", "grateful",
    ),
}  # fmt: skip

_SENTENCES: Final[Sequence[str]] = (
    "I love {food}, but I can't stand {food}.",
    "{who} is allergic to {food}.",
    "Remember to call {who} {when} about {business}.",
    "{who} moved to {place} {when} and is {feeling} about it.",
    "Meeting with {who} at {place} {when}: we agreed to cut {business} by {amount}.",
    "{tool} {fault} when we load more than {amount} rows.",
    "Switched from {tool} to {tool} because it {fault}.",
    "I prefer {tool} over {tool} for small services, mostly because it is easier to test.",
    "def retry(job, attempts={amount}): return job() or retry(job, attempts - 1)",
    "SELECT count(*) FROM memories WHERE user_id = 'ana' AND created_at > '2024-01-01';",
    "My {hobby} class starts {when}, and it costs {amount} a month.",
    "{who}: Are you coming to {place} {when}? Bring {food} if you can!",
    "Me: Sure, I'll be there {when}. I was {feeling} when I heard.",
    "Note: {business} needs {amount} more than planned; {who} will decide {when}.",
    "Call with {who}, {amount} minutes, missed.",
    "Photo taken in {place} {when}: {who} smiling next to a huge plate of {food}.",
    "Calendar: {hobby} with {who}, {place}, {when}, reminder 30 minutes before.",
    "Your parcel {amount} has arrived at {place}. Pick it up {when}.",
    "The password of the guest network is on the fridge, {who} said.",
    "What did {who} say about {business}?",
    "When did I last try {hobby}?",
    "Which bug in {tool} {fault}?",
    "No longer true: I gave up {hobby} {when}.",
    "I've been learning {hobby} for {amount} years, ever since {who} took me to {place}.",
    "We decided against {tool}: it {fault}, and nobody was {feeling} about fixing it.",
    "Lesson learnt: never deploy {tool} {when} without telling {who}.",
    "Goal for this year: run {amount} km, read more, and see {who} in {place}.",
    "{business} went up to {amount} {when}, which is {amount} more than {who} expected.",
    "Mañana ceno con {who} en {place}.",
    "Ich habe {when} mit {who} über {business} gesprochen.",
    "{who} m'a dit que {food} est meilleur à {place}.",
    "明天和 {who} 一起去 {place}。",
    "ok, thanks!!",
    "Happy birthday {who} 🎉 see you {when}",
)

_QUESTIONS: Final[Sequence[str]] = tuple(line for line in _SENTENCES if line.endswith("?"))


def memories(count: int, *, seed: int, sentences: tuple[int, int] = (1, 7)) -> list[str]:
    """`count` texts of `sentences` (at least, at most) each."""
    random = Random(seed)  # noqa: S311
    fewest, most = sentences
    return [
        " ".join(
            _filled(_pick(random, _SENTENCES), random)
            for _ in range(fewest + int(random.random() * (most - fewest + 1)))
        )
        for _ in range(count)
    ]


def questions(count: int, *, seed: int) -> list[str]:
    """`count` short questions."""
    random = Random(seed)  # noqa: S311
    return [_filled(_pick(random, _QUESTIONS), random) for _ in range(count)]


def _filled(sentence: str, random: Random) -> str:
    filled = sentence
    for slot, choices in _SLOTS.items():
        while "{" + slot + "}" in filled:
            filled = filled.replace("{" + slot + "}", _pick(random, choices), 1)
    return filled[:1].upper() + filled[1:]


# Only `random()` itself is promised to give the same numbers in every Python.
def _pick(random: Random, choices: Sequence[str]) -> str:
    return choices[int(random.random() * len(choices))]
