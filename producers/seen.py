"""What a client has seen of whose memories, so that what it does next to them is newer in any case.

The newest version wins, and versions come from the publishers' clocks. Of two publishers that know nothing
of each other the later clock wins, and nobody can say that it should not. But whoever forgets what it has
just found must succeed, even if its clock is behind that of whoever remembered it.
"""

from collections import OrderedDict
from typing import TypeVar

from pipeline.domain.versions import Stamp, stamp
from schemas.events import Enriched, MemoryForgotten, UserForgotten

Key = TypeVar("Key")
Value = TypeVar("Value")

MOST = 10_000
"""Memories of which the version is kept, and users."""


class Seen:
    """The newest versions that went by, of the memories seen last."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._versions: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._forgotten: OrderedDict[str, int] = OrderedDict()

    def add(self, user_id: str, memory_id: str, version: int) -> None:
        """This version of this memory went by."""
        key = (user_id, memory_id)
        newest = max(version, self._versions.pop(key, 0))
        _put(self._versions, key, newest, self._most)

    def forgot_user(self, user_id: str, version: int) -> None:
        """The user was forgotten up to this version: what is remembered from now on must be newer."""
        until = max(version, self._forgotten.pop(user_id, 0))
        _put(self._forgotten, user_id, until, self._most)

    def newest(self, user_id: str, memory_id: str | None) -> int:
        """The newest version seen of a memory, or of its user's forgetting; 0 if none was."""
        seen = 0 if memory_id is None else self._versions.get((user_id, memory_id), 0)
        return max(seen, self._forgotten.get(user_id, 0))

    def newest_of_user(self, user_id: str) -> int:
        """The newest version seen of any of the user's memories, or of the forgetting of all."""
        mine = [version for (user, _), version in self._versions.items() if user == user_id]
        return max([*mine, self._forgotten.get(user_id, 0)])


class Passed:
    """The newest state that went by of each of the memories seen last, to leave out what is older.

    The log repeats itself: what was published or delivered twice, what arrives late, what is said once
    more for compaction. Who follows it wants each memory to get newer only.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._stamps: OrderedDict[tuple[str, str], Stamp] = OrderedDict()
        self._forgotten: OrderedDict[str, int] = OrderedDict()

    def is_news(self, event: Enriched) -> bool:
        """Whether nothing newer, and not this one itself, went by before. From now on it has.

        Each copy of a user's forgetting is: it stands behind what it must outlive.
        """
        if isinstance(event, UserForgotten):
            until = max(event.version, self._forgotten.pop(event.user_id, 0))
            _put(self._forgotten, event.user_id, until, self._most)
            return True
        until = self._forgotten.get(event.user_id, 0)
        # Of the same version is what the record says of each memory that went with its user.
        goes_with = isinstance(event, MemoryForgotten) and event.version == until
        if event.version <= until and not goes_with:
            return False
        key, mine = (event.user_id, event.memory_id), stamp(event)
        before = self._stamps.pop(key, None)
        is_news = before is None or mine > before
        _put(self._stamps, key, mine if is_news or before is None else before, self._most)
        return is_news


def _put(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)
