"""What the readers of both databases share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from django.db import DatabaseError

LOOK = "SELECT epoch, number FROM mcp_bridge_changecounter"


NEWS = (
    "SELECT number, kind, key FROM mcp_bridge_change "
    "WHERE number > {0} AND number <= {1} ORDER BY number"
)


class Away(DatabaseError):
    """The database does not say what has changed."""


class Replaced(Away):
    """Another file has the database's name: nothing until the server restarts."""


class Point(NamedTuple):
    """A place in the sequence of changes; an empty epoch: they are not numbered."""

    epoch: str
    number: int


class Change(NamedTuple):
    """One line of the change log."""

    number: int
    kind: str
    key: str


NOWHERE = Point("", 0)


class Reader(Protocol):
    """What both databases offer."""

    async def look(self) -> Point:
        """Where the sequence of changes is now."""

    async def news(self, after: Point, upto: Point) -> list[Change]:
        """The changes in between, in order."""

    def replaced(self) -> bool:
        """Whether the database is no longer the one that was opened."""

    def close(self) -> None:
        """Give the connection back."""
