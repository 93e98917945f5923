"""The reader protocol, and the SQL and values that both databases share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from django.db import DatabaseError

POSITION_QUERY = "SELECT epoch, number FROM mcp_bridge_changecounter"


CHANGES_QUERY = (
    "SELECT number, kind, key FROM mcp_bridge_loggedchange "
    "WHERE number > {0} AND number <= {1} ORDER BY number"
)


class DatabaseUnavailable(DatabaseError):
    """The change log cannot be read."""


class DatabaseReplaced(DatabaseUnavailable):
    """The database file was replaced; every read fails until the server restarts."""


class LogPosition(NamedTuple):
    """A position in the change log; an empty epoch means changes are not tracked."""

    epoch: str
    number: int


class ChangeRow(NamedTuple):
    """One row of the change log."""

    number: int
    kind: str
    key: str


UNTRACKED = LogPosition("", 0)


class ChangeReader(Protocol):
    """Reads the change log of one database."""

    async def current_position(self) -> LogPosition:
        """The end of the log, read after this call. Raises DatabaseUnavailable."""

    async def changes_between(
        self, after: LogPosition, upto: LogPosition
    ) -> list[ChangeRow]:
        """Changes with `after` < number <= `upto`, in order."""

    def replaced(self) -> bool:
        """Whether the opened database file was replaced; callable from any thread."""

    def close(self) -> None:
        """Close the connection; the next read opens another."""
