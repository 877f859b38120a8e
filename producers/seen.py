"""What a client has seen of whose memories, so that what it does next to them is newer in any case.

The newest version wins, and versions come from the publishers' clocks. Of two publishers that know nothing
of each other the later clock wins, and nobody can say that it should not. But whoever forgets what it has
just found must succeed, even if its clock is behind that of whoever remembered it.
"""

from collections import OrderedDict
from uuid import UUID

MOST = 10_000
"""Memories of which the version is kept, and events that are known again."""


class Seen:
    """The newest versions that went by, of the memories seen last."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._versions: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._forgotten: OrderedDict[str, int] = OrderedDict()

    def add(self, user_id: str, memory_id: str, version: int) -> None:
        """This version of this memory went by."""
        key = (user_id, memory_id)
        self._versions[key] = max(version, self._versions.pop(key, 0))
        if len(self._versions) > self._most:
            self._versions.popitem(last=False)

    def forgot_user(self, user_id: str, version: int) -> None:
        """The user was forgotten up to this version: what is remembered from now on must be newer."""
        self._forgotten[user_id] = max(version, self._forgotten.pop(user_id, 0))
        if len(self._forgotten) > self._most:
            self._forgotten.popitem(last=False)

    def newest(self, user_id: str, memory_id: str | None) -> int:
        """The newest version seen of a memory, or of its user's forgetting; 0 if none was."""
        seen = 0 if memory_id is None else self._versions.get((user_id, memory_id), 0)
        return max(seen, self._forgotten.get(user_id, 0))

    def newest_of_user(self, user_id: str) -> int:
        """The newest version seen of any of the user's memories, or of the forgetting of all."""
        mine = [version for (user, _), version in self._versions.items() if user == user_id]
        return max([*mine, self._forgotten.get(user_id, 0)])


class Passed:
    """The events that went by last, to know one again."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._ids: OrderedDict[UUID, None] = OrderedDict()

    def again(self, event_id: UUID) -> bool:
        """Whether this one went by before; from now on it has."""
        known = event_id in self._ids
        self._ids[event_id] = None
        self._ids.move_to_end(event_id)
        if len(self._ids) > self._most:
            self._ids.popitem(last=False)
        return known
