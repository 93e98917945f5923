"""What the readers of both databases share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from django.db import DatabaseError

POSITION_QUERY = "SELECT epoch, number FROM mcp_bridge_changecounter"


CHANGES_QUERY = (
    "SELECT number, kind, key FROM mcp_bridge_change "
    "WHERE number > {0} AND number <= {1} ORDER BY number"
)


class DatabaseUnavailable(DatabaseError):
    """The database does not say what has changed."""


class Replaced(DatabaseUnavailable):
    """Another file has the database's name: nothing until the server restarts."""


class LogPosition(NamedTuple):
    """A place in the sequence of changes; an empty epoch: they are not numbered."""

    epoch: str
    number: int


class ChangeRow(NamedTuple):
    """One line of the change log."""

    number: int
    kind: str
    key: str


UNTRACKED = LogPosition("", 0)


class ChangeReader(Protocol):
    """What both databases offer."""

    async def current_position(self) -> LogPosition:
        """Where the sequence of changes is now."""

    async def changes_between(
        self, after: LogPosition, upto: LogPosition
    ) -> list[ChangeRow]:
        """The changes in between, in order."""

    def replaced(self) -> bool:
        """Whether the database is no longer the one that was opened."""

    def close(self) -> None:
        """Give the connection back."""
