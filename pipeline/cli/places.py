"""Where an import stopped, so that the next one goes on there.

It lies behind the last batch of which all is stored, and all before it: what was sent after that is published
again as the same events, which changes nothing, and waited for. Their versions are written down before they are
sent, so that a row is told from one that somebody else had put there. Removed at a complete end. It holds for
the same bytes, read to the same end for the same stream, only: any other import begins anew, which costs time
but doubles nothing.
"""

from bisect import bisect_left, bisect_right
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.embedded.state import state_dir, write_private

_HEAD_BYTES = 64 * 1024


class Source(BaseModel):
    """Which bytes are read, for which stream."""

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    mtime_ns: int
    head: str
    """SHA-256 of the first 64 KB."""
    target: str
    """The stream they go to."""
    user: str | None
    """Whose the rows are that do not say."""
    overwrite: bool
    """Whether the rows replace what is there: those before the place did so only if it was the same then."""


class Sent(BaseModel):
    """The lines after `after` were published with the versions after `base`, each in its place."""

    model_config = ConfigDict(frozen=True)

    after: int
    base: int


class Place(BaseModel):
    """How far a source was accepted, and what became of it up to there."""

    model_config = ConfigDict(frozen=True)

    source: Source
    line: int = 0
    offset: int = 0
    accepted: int = 0
    rejected: int = 0
    settled: dict[str, int] = {}
    """Of those accepted: what became of how many. Nothing where they were not waited for."""
    read: int = 0
    """The last line that was read: what could not be used up to there was told, the rest may be published."""
    sent: tuple[Sent, ...] = ()
    """How the lines up to there were published, in order; nothing where each publication is a new event."""
    conversations: dict[str, Any] = {}

    @property
    def is_settled(self) -> bool:
        """Whether it is known of all up to here what became of it."""
        return sum(self.settled.values()) == self.accepted

    def sending(self, until: int, *, now: int) -> "Place":
        """The place as it is to be kept before the lines up to `until` are published."""
        sent, read = self.sent, max(until, self.read)
        if self.source.overwrite or (sent and until <= self.read):
            return self.model_copy(update={"read": read})
        if sent:
            newest = sent[-1].base + self.read - sent[-1].after
            sent = (*sent, Sent(after=self.read, base=max(now, newest)))
        else:
            sent = (Sent(after=self.line, base=now),)
        return self.model_copy(update={"read": read, "sent": sent})

    def version_of(self, line: int) -> int:
        """The version of a line that was sent, or is about to be."""
        how = self.sent[bisect_left(self.sent, line, key=lambda sent: sent.after) - 1]
        return how.base + line - how.after

    def sent_after(self, line: int) -> tuple[Sent, ...]:
        """What of `sent` tells of lines after this one."""
        return self.sent[max(bisect_right(self.sent, line, key=lambda sent: sent.after) - 1, 0) :]

    def from_the_start(self) -> "Place":
        """The same rows once more, and as the same events where that is known of all of them."""
        knows_all = self.sent and self.sent[0].after == 0
        return Place(source=self.source, read=self.read, sent=self.sent if knows_all else ())


def source_of(path: Path, *, target: str, user: str | None, overwrite: bool) -> Source:
    """What the file is now."""
    about = path.stat()
    with path.open("rb") as file:
        head = sha256(file.read(_HEAD_BYTES)).hexdigest()
    return Source(
        path=str(path.resolve()),
        size=about.st_size,
        mtime_ns=about.st_mtime_ns,
        head=head,
        target=target,
        user=user,
        overwrite=overwrite,
    )


def kept(source: Source) -> Place | None:
    """Where the last import of this source stopped; None where none did, or the file has changed."""
    try:
        place = Place.model_validate_json(_file(source).read_bytes())
    except (OSError, ValidationError):
        return None
    return place if place.source == source else None


def keep(place: Place) -> None:
    """Remembers the place, atomically."""
    write_private(_file(place.source), place.model_dump_json())


def drop(source: Source) -> None:
    """The import is complete, or begins anew."""
    _file(source).unlink(missing_ok=True)


def _file(source: Source) -> Path:
    name = sha256(f"{source.path}\n{source.target}".encode("utf-8", "surrogateescape"))
    return state_dir() / "imports" / f"{name.hexdigest()[:24]}.json"
