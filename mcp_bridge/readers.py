"""How a worker sees what has changed: a read of one row, made inside the request.

A reader's `look()` begins its read after it was called. It gives the epoch and the
number of the last change, `news()` the changes after a number. What goes wrong is
raised as Away, a DatabaseError: nothing can be decided.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, NamedTuple, Protocol

import psycopg
from django.db import DatabaseError, connection
from psycopg import pq

LOOK = "SELECT epoch, number FROM mcp_bridge_changecounter"
NEWS = (
    "SELECT number, kind, key FROM mcp_bridge_change "
    "WHERE number > {0} AND number <= {1} ORDER BY number"
)
PATIENCE = 5
"""Seconds a read may take before the database counts as away."""


class Away(DatabaseError):
    """The database does not say what has changed."""


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

    def close(self) -> None:
        """Give the connection back."""


class SqliteReader:
    """A connection of its own, read on the event loop: microseconds, never a lock.

    In WAL mode a reader waits for no writer.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.connection: sqlite3.Connection | None = None
        self.version = -1
        self.point = NOWHERE

    async def look(self) -> Point:
        """As the protocol says; while no other connection wrote, nothing changed."""
        try:
            opened = self.connection or self.open()
            (version,) = opened.execute("PRAGMA data_version").fetchone()
            if version != self.version:
                row = opened.execute(LOOK).fetchone()
                self.point = Point(*row) if row else NOWHERE
                self.version = version
        except sqlite3.Error as error:
            self.close()
            raise Away(str(error)) from error
        return self.point

    async def news(self, after: Point, upto: Point) -> list[Change]:
        """As the protocol says."""
        try:
            opened = self.connection or self.open()
            found = opened.execute(NEWS.format(after.number, upto.number))
            return [Change(*row) for row in found]
        except sqlite3.Error as error:
            self.close()
            raise Away(str(error)) from error

    def open(self) -> sqlite3.Connection:
        """Connect for reading only; never make a file that is not there."""
        self.connection = sqlite3.connect(
            f"file:{self.name}?mode=rw", uri=True, timeout=0.2, isolation_level=None
        )
        self.connection.execute("PRAGMA query_only = ON")
        self.version = -1
        return self.connection

    def close(self) -> None:
        """As the protocol says."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class PostgresReader:
    """A connection of its own, and libpq on the event loop: one round trip a look.

    Requests that wait share one read (single flight), but none joins a read that was
    sent before the request came. One read is in flight at a time.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self.connection: psycopg.AsyncConnection[Any] | None = None
        self.descriptor = -1
        self.opening: asyncio.Task[None] | None = None
        self.flight: Flight | None = None
        self.next = Flight(LOOK)
        self.others: list[Flight] = []

    async def look(self) -> Point:
        """As the protocol says."""
        rows = await self.asked(self.next)
        return Point(rows[0][0].decode(), int(rows[0][1])) if rows else NOWHERE

    async def news(self, after: Point, upto: Point) -> list[Change]:
        """As the protocol says."""
        flight = Flight(NEWS.format(after.number, upto.number))
        self.others.append(flight)
        rows = await self.asked(flight)
        return [Change(int(n), kind.decode(), key.decode()) for n, kind, key in rows]

    def asked(self, flight: Flight) -> asyncio.Future[Rows]:
        """A place on a read that has not been sent."""
        place: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        flight.waiting.append(place)
        if self.flight is None and self.opening is None:
            self.depart()
        return place

    def depart(self) -> None:
        """Send the next read that somebody waits for."""
        if self.connection is None:
            self.opening = asyncio.get_running_loop().create_task(self.open())
            return
        if self.others:
            self.flight = self.others.pop(0)
        elif self.next.waiting:
            self.flight, self.next = self.next, Flight(LOOK)
        if self.flight is not None:
            self.send(self.flight, self.connection.pgconn)

    def send(self, flight: Flight, wire: pq.abc.PGconn) -> None:
        """Put it on the wire; silence for PATIENCE seconds ends the connection."""
        try:
            wire.send_query_params(flight.query, None)
            wire.flush()
        except psycopg.Error as error:
            self.lose(error)
            return
        loop = asyncio.get_running_loop()
        late = Away(f"no answer within {PATIENCE} s")
        flight.alarm = loop.call_later(PATIENCE, self.lose, late)

    def arrive(self, wire: pq.abc.PGconn) -> None:
        """Take what the database sent; called when there is something to read."""
        try:
            wire.consume_input()
            if self.flight is None or wire.is_busy():
                return
            rows = rows_of(wire)
        except psycopg.Error as error:
            self.lose(error)
            return
        done, self.flight = self.flight, None
        done.land(rows)
        if self.others or self.next.waiting:
            self.depart()

    async def open(self) -> None:
        """Connect, then send what waits."""
        try:
            found = await psycopg.AsyncConnection.connect(
                **self.parameters, autocommit=True
            )
        except psycopg.Error as error:
            self.opening = None
            self.lose(error)
            return
        self.connection, self.opening = found, None
        self.descriptor = found.fileno()  # a broken connection does not tell it
        loop = asyncio.get_running_loop()
        loop.add_reader(self.descriptor, self.arrive, found.pgconn)
        self.depart()

    def lose(self, error: Exception) -> None:
        """The database is away: everybody who waits is told, the next may try."""
        flights = [self.next, *self.others, *([self.flight] if self.flight else [])]
        self.next, self.others, self.flight = Flight(LOOK), [], None
        for flight in flights:
            flight.fail(error)
        self.close()

    def close(self) -> None:
        """As the protocol says."""
        if self.connection is not None:
            asyncio.get_running_loop().remove_reader(self.descriptor)
            self.connection.pgconn.finish()
            self.connection = None


Rows = list[tuple[bytes, ...]]


class Flight:
    """One read, and those who wait for it."""

    __slots__ = ("alarm", "query", "waiting")

    def __init__(self, query: str) -> None:
        self.query = query.encode()
        self.waiting: list[asyncio.Future[Rows]] = []
        self.alarm: asyncio.TimerHandle | None = None

    def land(self, rows: Rows) -> None:
        """Tell everybody what was read."""
        if self.alarm is not None:
            self.alarm.cancel()
        for place in self.waiting:
            if not place.done():
                place.set_result(rows)

    def fail(self, error: Exception) -> None:
        """Tell everybody that nothing was."""
        if self.alarm is not None:
            self.alarm.cancel()
        for place in self.waiting:
            if not place.done():
                place.set_exception(Away(str(error).strip()))


def rows_of(wire: pq.abc.PGconn) -> Rows:
    """All rows of the answer that has arrived. Raises psycopg.Error."""
    rows: Rows = []
    while (result := wire.get_result()) is not None:
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(result.get_error_message())
        for row in range(result.ntuples):
            cells = range(result.nfields)
            rows.append(tuple(result.get_value(row, cell) or b"" for cell in cells))
    return rows


def reader() -> Reader:
    """The reader for this project's database."""
    if connection.vendor == "sqlite":
        return SqliteReader(str(connection.settings_dict["NAME"]))
    ours = {"context", "cursor_factory", "prepare_threshold", "pool"}
    given = connection.get_connection_params()
    parameters = {name: given[name] for name in given if name not in ours}
    return PostgresReader({"connect_timeout": PATIENCE, **parameters})
