"""Questions and answers: memory.search.asked, memory.operator.asked -> the asker's reply topic.

A question names who asks, by when it needs the answer and where to send it. There is always an answer:
what cannot be answered is answered with a `Failed` that says why.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
)

from schemas.events import Domain, Message, Outcome, Said, Tier, Utc, Version
from schemas.filters import Where
from schemas.text import Id, Metadata, Text, metadata_within_limits

MAX_LIMIT = 100
MAX_RECEIPTS = 500
MAX_FINGERPRINTS = 2_000


Mode = Literal["hybrid", "dense", "lexical"]
"""How a search finds: by meaning and by words, by meaning alone (cosine), or by words alone (BM25)."""


_MOST_KEYS = 16


def _few(given: Any) -> Any:
    # Before each is read: to find what is wrong with each of 100,000 takes seconds.
    if isinstance(given, dict) and len(given) > _MOST_KEYS:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(f"has more than {_MOST_KEYS} entries")
    return given  # pyright: ignore[reportUnknownVariableType]


class ReplyTo(BaseModel):
    """Where the asker listens."""

    model_config = ConfigDict(frozen=True)

    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    partition: Annotated[int, Field(ge=0)]


class SearchFilter(BaseModel):
    """Narrows a search; what is given must all hold. It can never widen it beyond one user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: Domain | None = None
    topics: Annotated[tuple[Id, ...], Field(max_length=32, fail_fast=True)] = ()
    """Any of these."""
    occurred_from: Utc | None = None
    """Inclusive."""
    occurred_until: Utc | None = None
    """Exclusive."""
    speaker: Id | None = None
    agent_id: Id | None = None
    app_id: Id | None = None
    run_id: Id | None = None
    tiers: Annotated[tuple[Tier, ...], Field(max_length=4, fail_fast=True)] = ()
    """Any of these; all but the archived ones unless given."""
    metadata: Annotated[
        dict[str, str | int | bool],
        Field(max_length=_MOST_KEYS),
        BeforeValidator(_few),
        AfterValidator(metadata_within_limits),
    ] = {}
    """Each key must hold exactly this value, or a list with it."""
    where: Where | None = None
    """Conditions that nest; they must hold as well."""

    @property
    def names_tiers(self) -> bool:
        """Whether it says from which tiers; archived memories are found only then."""
        return bool(self.tiers) or (self.where is not None and self.where.names_tiers)


class Question(Message):
    """What every question carries."""

    question_id: UUID
    asked_at: Utc
    deadline: Utc
    """After this nobody waits any more: do not begin."""
    reply_to: ReplyTo


class UserQuestion(Question):
    """A question about the memories of one user; without a user it is refused."""

    user_id: Id


class SearchAsked(UserQuestion):
    """Which memories of this user are closest to `text`?"""

    type: Literal["SearchAsked"] = "SearchAsked"
    text: Text
    mode: Mode = "hybrid"
    rerank: bool | None = None
    """Whether the best hits are read again, each together with the question; None: where a model for it
    is set up. True is refused where none is."""
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How much it counts that a hit is unlike the better ones; 0: not at all."""
    explain: bool = False
    """Whether each hit tells what every signal gave, and which words matched, in it and in its day."""
    as_of: Utc | None = None
    """What was believed then: each memory as it was published by that moment, without those that came later.
    What was forgotten since is gone from the past, too."""
    use_classifiers: bool = True
    """Whether what the classifiers said of memories and question may count: topics and importance."""
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 10
    min_score: Annotated[float, Field(ge=-1, le=1)] | None = None
    filter: SearchFilter = SearchFilter()
    recall: bool = True
    """Whether the best hits count as recalled, so that they rise: False for who only looks."""


class EventRef(BaseModel):
    """Names one event by what it changed; without `memory_id` it is the forgetting of the user."""

    model_config = ConfigDict(frozen=True)

    event_id: UUID
    memory_id: Id | None = None
    version: Version
    if_absent: bool = False
    """Whether the event yields to any other state of its memory."""


class ReceiptsAsked(UserQuestion):
    """Have both stores done with these events of this user?"""

    type: Literal["ReceiptsAsked"] = "ReceiptsAsked"
    events: Annotated[
        tuple[EventRef, ...], Field(min_length=1, max_length=MAX_RECEIPTS, fail_fast=True)
    ]


class MemoryAsked(UserQuestion):
    """What is the newest state of this memory, or the one that it had at a moment?"""

    type: Literal["MemoryAsked"] = "MemoryAsked"
    memory_id: Id
    as_of: Utc | None = None


class NewestAsked(UserQuestion):
    """Which is the greatest version among the states of this user that the record holds, and how many memories?"""

    type: Literal["NewestAsked"] = "NewestAsked"


class CountsAsked(Question):
    """How many memories does each store hold? An operator's question: it names no user."""

    type: Literal["CountsAsked"] = "CountsAsked"


class FingerprintsAsked(Question):
    """What does the index hold beyond this key? An operator's question: no text, no user, no memory id."""

    type: Literal["FingerprintsAsked"] = "FingerprintsAsked"
    after: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_FINGERPRINTS)] = MAX_FINGERPRINTS


class FingerprintsOfAsked(Question):
    """What does the index hold under these keys? An operator's question, as the one above."""

    type: Literal["FingerprintsOfAsked"] = "FingerprintsOfAsked"
    keys: Annotated[
        tuple[UUID, ...], Field(min_length=1, max_length=MAX_FINGERPRINTS, fail_fast=True)
    ]


class IndexReplaceAsked(Question):
    """The owner of the index is to go on with a fresh one that lies beside it. An operator's question.

    `adopt`: write to both. `switch`: answer from the fresh one, remove the old one. `abandon`: forget it.
    """

    type: Literal["IndexReplaceAsked"] = "IndexReplaceAsked"
    step: Literal["adopt", "switch", "abandon"]
    name: Annotated[str, Field(pattern=r"^index-[0-9a-f]{32}$")]


class Answer(Message):
    """What every answer carries."""

    question_id: UUID
    took_ms: FiniteFloat = 0.0
    """From the question's arrival at the query consumer to the answer's departure."""


class KnownMemory(BaseModel):
    """A memory as the stores hold it."""

    model_config = ConfigDict(frozen=True)

    memory_id: str
    text: str
    occurred_at: AwareDatetime
    version: int
    speaker: str | None = None
    agent_id: str | None = None
    app_id: str | None = None
    run_id: str | None = None
    domain: Domain
    topics: tuple[str, ...] = ()
    metadata: Metadata = {}
    tier: Tier = "short"
    """As it stands when it is told."""
    consolidated: tuple[str, ...] = ()
    """Near-duplicates that this memory stands for; they are archived."""


class RecordedMemory(KnownMemory):
    """A memory as the record holds it, with what is told only of one at a time."""

    published_at: AwareDatetime | None = None
    """When this state was published."""
    importance: FiniteFloat | None = None
    """0 to 1."""
    into: str | None = None
    """The memory that stands for this one, where it is archived as a near-duplicate."""
    preceding: tuple[Said, ...] = ()
    """What was said just before, as it is understood; of a past state it is not known."""


class Hit(KnownMemory):
    """One memory that was found."""

    score: FiniteFloat
    """-1 to 1: the cosine similarity where the mode is dense, otherwise what the signals weigh together.

    It says the same whatever is done to the order afterwards: reranked or diversified hits are not in the
    order of their scores."""
    signals: dict[str, FiniteFloat] = {}
    """What each signal gave, 0 to 1 each (a cosine from -1); told where an explanation was asked for."""
    parts: dict[str, FiniteFloat] = {}
    """What each signal adds to the score, by its weight; they add up to it. Told with the signals."""
    matched: tuple[str, ...] = ()
    """Words of the question that the memory has in some form, in its text or in who said it; told with the
    signals. Where there are none, nor any in `matched_day`, what `lexical` gave comes from texts said beside it."""
    matched_day: tuple[str, ...] = ()
    """Words of the question that the day has on which it happened ("Friday 8 May 2026"); told with the signals."""


class NamedTime(BaseModel):
    """A time that a question was read to name: from `since` until before `until`, by UTC's clock."""

    model_config = ConfigDict(frozen=True)

    since: Utc
    until: Utc
    every_year: bool = False
    """Whether it is meant in whichever year."""


class SearchAnswered(Answer):
    """The closest memories, best first; equally good ones in the order of their ids."""

    type: Literal["SearchAnswered"] = "SearchAnswered"
    hits: tuple[Hit, ...]
    embed_ms: FiniteFloat = 0.0
    search_ms: FiniteFloat = 0.0
    rerank_ms: FiniteFloat = 0.0
    degraded: str | None = None
    """What could not be done, and why; the hits are the best without it."""
    kept: bool = False
    """Whether the ranking was kept from an equal question, since which nothing of the user has changed."""
    times: tuple[NamedTime, ...] = ()
    """The times that the question was read to name; told where an explanation was asked for."""


class ReceiptState(BaseModel):
    """How far each store is with one event."""

    model_config = ConfigDict(frozen=True)

    event_id: UUID
    record: bool
    index: bool
    outcome: Outcome | None = None
    """What became of the event, as of now; None until both have done with it."""


class ReceiptsAnswered(Answer):
    """One state for each event asked about, in the order asked."""

    type: Literal["ReceiptsAnswered"] = "ReceiptsAnswered"
    states: tuple[ReceiptState, ...]


class MemoryAnswered(Answer):
    """The newest state of a memory, or None where there is none, or it was forgotten."""

    type: Literal["MemoryAnswered"] = "MemoryAnswered"
    memory: RecordedMemory | None = None
    forgotten: bool = False
    forgotten_until: int = 0
    """Where there is no memory: up to which version nothing brings it back, as it was forgotten, or its user; 0
    where neither was."""


class NewestAnswered(Answer):
    """The greatest version that the record holds of the user; 0 where it holds nothing."""

    type: Literal["NewestAnswered"] = "NewestAnswered"
    version: int
    memories: int | None = None
    """Of the user, without what is forgotten; None where a desk does not tell, as an earlier one."""


class CacheState(BaseModel):
    """What one tier of a desk's caches had, and had not, since its process started."""

    model_config = ConfigDict(frozen=True)

    kind: str
    """`vectors` of questions, `answers`, or `memories` of users with many, by their vectors."""
    tier: int
    """0: the process itself. 2: Redis."""
    hits: int
    misses: int


class CountsAnswered(Answer):
    """Memories that are not forgotten, of all users, as each store counts them."""

    type: Literal["CountsAnswered"] = "CountsAnswered"
    record: int
    index: int
    caches: tuple[CacheState, ...] = ()
    """Of the process that answers: those of the query desk beside it, nearest first."""
    cache_bytes: int = 0
    """What its tier 0 holds."""


class HeldState(BaseModel):
    """One state that the index holds, told by where it stands among the others and by its hash."""

    model_config = ConfigDict(frozen=True)

    key: UUID
    """Of the memory, or of the user where this is a watermark."""
    precedence: int
    tie: int
    forgotten: bool
    watermark: bool
    """Up to this version a user was forgotten."""
    content_hash: str
    """Empty for what was forgotten."""
    life: int | None = None
    """The version of what the index knows of the memory's use, 0 for nothing; None: it does not say."""


class FingerprintsAnswered(Answer):
    """What the index holds, in the order of the keys; fewer than asked for only at the end."""

    type: Literal["FingerprintsAnswered"] = "FingerprintsAnswered"
    states: tuple[HeldState, ...]


class IndexReplaceAnswered(Answer):
    """It is done."""

    type: Literal["IndexReplaceAnswered"] = "IndexReplaceAnswered"


class Failed(Answer):
    """No answer, and why. `retry` says whether the same question may fare better later."""

    type: Literal["Failed"] = "Failed"
    reason: str
    retry: bool


UserAsked = SearchAsked | ReceiptsAsked | MemoryAsked | NewestAsked
"""About the memories of one user."""
OperatorAsked = CountsAsked | FingerprintsAsked | FingerprintsOfAsked | IndexReplaceAsked
"""About everybody's, or to change what answers: on a topic of their own."""
Asked = UserAsked | OperatorAsked
Answered = (
    SearchAnswered
    | ReceiptsAnswered
    | MemoryAnswered
    | NewestAnswered
    | CountsAnswered
    | FingerprintsAnswered
    | IndexReplaceAnswered
    | Failed
)

ASKED: TypeAdapter[Asked] = TypeAdapter(Annotated[Asked, Field(discriminator="type")])
ANSWERED: TypeAdapter[Answered] = TypeAdapter(Annotated[Answered, Field(discriminator="type")])
