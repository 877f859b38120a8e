"""Where an import stopped, so that the next one goes on there.

It lies behind the last batch of which all is stored, and all before it: what was accepted after that is
published again, which changes nothing, and waited for. Removed at a complete end. It holds for the same bytes, read
to the same end for the same stream, only: any other import begins anew, which costs time but doubles nothing.
"""

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
    """The last line that was read: what could not be used up to there was told."""
    conversations: dict[str, Any] = {}

    @property
    def is_settled(self) -> bool:
        """Whether it is known of all up to here what became of it."""
        return sum(self.settled.values()) == self.accepted


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
