"""A python session that several nodes of a tree hold at once.

A node without a tool call of its own ends in its parent's session. Nobody runs code in a session that is held by more
than its own node: a step's code always runs in a fork, so a held session is a snapshot.
"""

from __future__ import annotations

from typing import Any


class SharedSession:
    """A sandbox session, closed when its last holder lets go. Starts with one holder."""

    __slots__ = ("_holders", "_session")

    def __init__(self, session: Any) -> None:
        self._session = session
        self._holders = 1

    def hold(self) -> None:
        """One more node ends in this session."""
        self._holders += 1

    def release(self) -> None:
        """One node less; the last one closes the session."""
        self._holders -= 1
        if self._holders == 0:
            self._session.close()

    def fork(self) -> Any:
        """A new sandbox session with a copy of this one's state."""
        return self._session.fork()

    async def run(self, code: str) -> Any:
        """Run code in the session itself."""
        return await self._session.run(code)
