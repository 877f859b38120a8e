"""What a stage is: a topic to read, what to make of a batch, a topic to write.

A stage file in consumers/ has one function `stage(...)` that names the ports it needs as its arguments
and returns one of these. Delivery, retries and dead letters are not its concern.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.events import Message
from schemas.search import Answered, Asked
from schemas.topics import Topic

Made = Message | tuple[Message, ...]
"""What comes of one event."""


@dataclass(frozen=True, slots=True)
class Onward:
    """A message for another topic than the stage's own, placed by its key."""

    topic: Topic
    message: Message


async def nothing_more(_: Sequence[tuple[Any, Any]]) -> AsyncGenerator[Sequence[Onward]]:
    """What follows from a batch of most stages."""
    return
    yield


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Turns batches of events into events: one for one, or none or several for one."""

    name: str
    """Names the consumer group too."""
    reads: Topic
    writes: Topic | None
    """None where the stream ends: in a store, say."""
    decode: Callable[[bytes], Any]
    """Bytes to an event; a ValueError sets the message aside."""
    react: Callable[[Sequence[Any]], Awaitable[Sequence[Made]]]
    """For each event in, in order, the event out, which keeps its partition; or a tuple of any number of
    events, each of which goes where its key belongs. It may be called again with the same events.

    Unavailable has the same batch tried again later. Unusable has it tried in halves, until the one
    message that cannot be used is alone and set aside. Anything else ends the process.
    """
    follow: Callable[[Sequence[tuple[Any, Any]]], AsyncGenerator[Sequence[Onward]]] = nothing_more
    """What else follows from a batch, page by page: given each event and what `react` made of it.

    A page is acknowledged before the next is asked for, and all of them before the batch is committed: a
    crash, or Unavailable, repeats the batch from its beginning.
    """
    follows_on: tuple[Topic, ...] = ()
    """Where `follow` writes."""
    max_records: int = 256
    max_bytes: int = 4 * 1024 * 1024
    """Of the values in one batch: what `react` takes at once must be done within minutes, or Kafka gives
    the partitions to another consumer, and the batch begins anew."""


def nothing_to_tell(_asked: Asked, _answered: Answered) -> Sequence[Message]:
    """What follows from most answers."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Answers questions, many at a time."""

    name: str
    reads: Topic
    answer: Callable[[Asked], Awaitable[Answered]]
    """PipelineError becomes an answer that says what is wrong."""
    tells: Topic | None = None
    """Where what follows from an answer is published."""
    following: Callable[[Asked, Answered], Sequence[Message]] = nothing_to_tell
    """What follows from an answer. It is told once the answer has left, as far as Kafka keeps up: an answer
    never waits for it, nor fails with it."""
    max_workers: int = 16
    workers_a_user: int = 8
    """At most, of one user's questions at once: the others are for everybody else."""
