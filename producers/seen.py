"""What a client has seen of whose memories, so that what it does next to them is newer in any case.

The newest version wins, and versions come from the publishers' clocks. Of two publishers that know nothing
of each other the later clock wins, and nobody can say that it should not. But whoever forgets what it has
just found must succeed, even if its clock is behind that of whoever remembered it.
"""

from collections import OrderedDict

MOST = 10_000
"""Memories of which the version is kept."""


class Seen:
    """The newest versions that went by, of the memories seen last."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._versions: OrderedDict[tuple[str, str], int] = OrderedDict()

    def add(self, user_id: str, memory_id: str, version: int) -> None:
        """This version of this memory went by."""
        key = (user_id, memory_id)
        self._versions[key] = max(version, self._versions.pop(key, 0))
        if len(self._versions) > self._most:
            self._versions.popitem(last=False)

    def newest(self, user_id: str, memory_id: str | None = None) -> int:
        """The newest version seen of a memory, or of any of the user's; 0 if none was."""
        if memory_id is not None:
            return self._versions.get((user_id, memory_id), 0)
        mine = (version for (user, _), version in self._versions.items() if user == user_id)
        return max(mine, default=0)
