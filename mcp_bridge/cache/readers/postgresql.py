"""The read inside the request on PostgreSQL: libpq on the event loop, no thread."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import lookup

from mcp_bridge.cache.readers.base import (
    CHANGES_QUERY,
    POSITION_QUERY,
    UNTRACKED,
    ChangeRow,
    DatabaseUnavailable,
    LogPosition,
)

PATIENCE = 5
"""Seconds a read may take before the database counts as away."""
LOOKING, PREPARED = POSITION_QUERY.encode(), b"portico_look"
"""The look as a prepared statement: half the work of the database."""
POOLED = ("26000", "42P05", "08P01")
"""SQLSTATEs by which a pooler betrays that the next statement runs elsewhere."""


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
        self.pending: PendingQuery | None = None
        self.next = PendingQuery(POSITION_QUERY)
        self.others: list[PendingQuery] = []
        self.prepares = True

    async def current_position(self) -> LogPosition:
        """As the protocol says."""
        rows = await self.asked(self.next)
        return LogPosition(rows[0][0].decode(), int(rows[0][1])) if rows else UNTRACKED

    async def changes_between(
        self, after: LogPosition, upto: LogPosition
    ) -> list[ChangeRow]:
        """As the protocol says."""
        flight = PendingQuery(CHANGES_QUERY.format(after.number, upto.number))
        self.others.append(flight)
        rows = await self.asked(flight)
        return [ChangeRow(int(n), kind.decode(), key.decode()) for n, kind, key in rows]

    def asked(self, flight: PendingQuery) -> asyncio.Future[Rows]:
        """A place on a read that has not been sent."""
        place: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        flight.waiting.append(place)
        if self.pending is None and self.opening is None:
            self._send_next()
        return place

    def _send_next(self) -> None:
        """Send the next read that somebody waits for."""
        if self.connection is None:
            self.opening = asyncio.get_running_loop().create_task(self.open())
            return
        if self.others:
            self.pending = self.others.pop(0)
        elif self.next.waiting:
            self.pending, self.next = self.next, PendingQuery(POSITION_QUERY)
        if self.pending is not None:
            self.send(self.pending, self.connection.pgconn)

    def send(self, flight: PendingQuery, wire: pq.abc.PGconn) -> None:
        """Put it on the wire; silence for PATIENCE seconds ends the connection."""
        try:
            if self.prepares and flight.query == LOOKING:
                wire.send_query_prepared(PREPARED, None)
            else:
                wire.send_query_params(flight.query, None)
            wire.flush()
        except psycopg.Error as error:
            self._fail_all(error)
            return
        loop = asyncio.get_running_loop()
        late = DatabaseUnavailable(f"no answer within {PATIENCE} s")
        flight.alarm = loop.call_later(PATIENCE, self._fail_all, late)

    def _on_readable(self, wire: pq.abc.PGconn) -> None:
        """Take what the database sent; called when there is something to read."""
        try:
            wire.consume_input()
            if self.pending is None or wire.is_busy():
                return
            rows = rows_of(wire)
        except psycopg.Error as error:
            self._fail_all(error)
            return
        done, self.pending = self.pending, None
        done.resolve(rows)
        if self.others or self.next.waiting:
            self._send_next()

    async def open(self) -> None:
        """Connect, then send what waits."""
        try:
            found = await self.connected()
        except psycopg.Error as error:
            self.opening = None
            self._fail_all(error)
            return
        self.connection, self.opening = found, None
        self.descriptor = found.fileno()  # a broken connection does not tell it
        loop = asyncio.get_running_loop()
        loop.add_reader(self.descriptor, self._on_readable, found.pgconn)
        self._send_next()

    async def connected(self) -> psycopg.AsyncConnection[Any]:
        """A connection on which the look is prepared. Raises psycopg.Error."""
        found: psycopg.AsyncConnection[Any]
        found = await psycopg.AsyncConnection.connect(
            **self.parameters, autocommit=True
        )
        try:
            if self.prepares:
                await found.execute(f"PREPARE {PREPARED.decode()} AS {POSITION_QUERY}")
        except BaseException:
            await found.close()
            raise
        return found

    def _fail_all(self, error: Exception) -> None:
        """The database is away: everybody who waits is told, the next may try."""
        if isinstance(error, psycopg.Error) and error.sqlstate in POOLED:
            self.prepares = False
        flights = [self.next, *self.others, *([self.pending] if self.pending else [])]
        self.next, self.others, self.pending = PendingQuery(POSITION_QUERY), [], None
        for flight in flights:
            flight.fail(error)
        self.close()

    def replaced(self) -> bool:
        """As the protocol says: a connection that is lost shows."""
        return False

    def close(self) -> None:
        """As the protocol says."""
        if self.connection is not None:
            asyncio.get_running_loop().remove_reader(self.descriptor)
            self.connection.pgconn.finish()
            self.connection = None


Rows = list[tuple[bytes, ...]]


class PendingQuery:
    """One read, and those who wait for it."""

    __slots__ = ("alarm", "query", "waiting")

    def __init__(self, query: str) -> None:
        self.query = query.encode()
        self.waiting: list[asyncio.Future[Rows]] = []
        self.alarm: asyncio.TimerHandle | None = None

    def resolve(self, rows: Rows) -> None:
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
                place.set_exception(DatabaseUnavailable(str(error).strip()))


def rows_of(wire: pq.abc.PGconn) -> Rows:
    """All rows of the answer that has arrived. Raises psycopg.Error."""
    rows: Rows = []
    while (result := wire.get_result()) is not None:
        if result.status != pq.ExecStatus.TUPLES_OK:
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            problem = lookup(state) if state in POOLED else psycopg.OperationalError
            raise problem(result.get_error_message())
        for row in range(result.ntuples):
            cells = range(result.nfields)
            rows.append(tuple(result.get_value(row, cell) or b"" for cell in cells))
    return rows
