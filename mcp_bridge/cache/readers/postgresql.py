"""The change log on PostgreSQL: libpq on the event loop, without a thread."""

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

READ_TIMEOUT = 5
"""Seconds that a read may take before the database counts as unavailable."""
POSITION_STATEMENT, PREPARED = POSITION_QUERY.encode(), b"portico_look"
"""A prepared statement: it halves the database's work for this query."""
POOLER_ERRORS = ("26000", "42P05", "08P01")
"""SQLSTATEs of a pooler that runs the next statement on another connection."""


class PostgresReader:
    """A dedicated connection, driven by the event loop: one round trip a read.

    Waiting requests share one read (single flight). None joins a read that was sent
    before the request arrived. One read is in flight at a time.
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
        rows = await self.enqueue(self.next)
        return LogPosition(rows[0][0].decode(), int(rows[0][1])) if rows else UNTRACKED

    async def changes_between(
        self, after: LogPosition, upto: LogPosition
    ) -> list[ChangeRow]:
        query = PendingQuery(CHANGES_QUERY.format(after.number, upto.number))
        self.others.append(query)
        rows = await self.enqueue(query)
        return [ChangeRow(int(n), kind.decode(), key.decode()) for n, kind, key in rows]

    def enqueue(self, query: PendingQuery) -> asyncio.Future[Rows]:
        """A future for the rows of a query that has not been sent."""
        waiter: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        query.waiting.append(waiter)
        if self.pending is None and self.opening is None:
            self._send_next()
        return waiter

    def _send_next(self) -> None:
        """Send the next query that has a waiter; connect first if necessary."""
        if self.connection is None:
            self.opening = asyncio.get_running_loop().create_task(self.open())
            return
        if self.others:
            self.pending = self.others.pop(0)
        elif self.next.waiting:
            self.pending, self.next = self.next, PendingQuery(POSITION_QUERY)
        if self.pending is not None:
            self.send(self.pending, self.connection.pgconn)

    def send(self, query: PendingQuery, wire: pq.abc.PGconn) -> None:
        """Send the query; without an answer in READ_TIMEOUT seconds, disconnect."""
        try:
            if self.prepares and query.sql == POSITION_STATEMENT:
                wire.send_query_prepared(PREPARED, None)
            else:
                wire.send_query_params(query.sql, None)
            wire.flush()
        except psycopg.Error as error:
            self._fail_all(error)
            return
        loop = asyncio.get_running_loop()
        late = DatabaseUnavailable(f"no answer within {READ_TIMEOUT} s")
        query.alarm = loop.call_later(READ_TIMEOUT, self._fail_all, late)

    def _on_readable(self, wire: pq.abc.PGconn) -> None:
        """Read what the database sent; the event loop calls this."""
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
        """Connect, then send the next query."""
        try:
            opened = await self.connect()
        except psycopg.Error as error:
            self.opening = None
            self._fail_all(error)
            return
        self.connection, self.opening = opened, None
        self.descriptor = opened.fileno()  # a broken connection has no fileno()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.descriptor, self._on_readable, opened.pgconn)
        self._send_next()

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """A connection with POSITION_QUERY prepared. Raises psycopg.Error."""
        opened: psycopg.AsyncConnection[Any]
        opened = await psycopg.AsyncConnection.connect(
            **self.parameters, autocommit=True
        )
        try:
            if self.prepares:
                await opened.execute(f"PREPARE {PREPARED.decode()} AS {POSITION_QUERY}")
        except BaseException:
            await opened.close()
            raise
        return opened

    def _fail_all(self, error: Exception) -> None:
        """Fail every waiting query; the next one connects again."""
        if isinstance(error, psycopg.Error) and error.sqlstate in POOLER_ERRORS:
            self.prepares = False
        queries = [self.next, *self.others, *([self.pending] if self.pending else [])]
        self.next, self.others, self.pending = PendingQuery(POSITION_QUERY), [], None
        for query in queries:
            query.fail(error)
        self.close()

    def replaced(self) -> bool:
        """Always False: a lost connection raises at the next read."""
        return False

    def close(self) -> None:
        if self.connection is not None:
            asyncio.get_running_loop().remove_reader(self.descriptor)
            self.connection.pgconn.finish()
            self.connection = None


Rows = list[tuple[bytes, ...]]


class PendingQuery:
    """One query and the futures that wait for its rows."""

    __slots__ = ("alarm", "sql", "waiting")

    def __init__(self, query: str) -> None:
        self.sql = query.encode()
        self.waiting: list[asyncio.Future[Rows]] = []
        self.alarm: asyncio.TimerHandle | None = None

    def resolve(self, rows: Rows) -> None:
        if self.alarm is not None:
            self.alarm.cancel()
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(rows)

    def fail(self, error: Exception) -> None:
        if self.alarm is not None:
            self.alarm.cancel()
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_exception(DatabaseUnavailable(str(error).strip()))


def rows_of(wire: pq.abc.PGconn) -> Rows:
    """All rows of the result that has arrived. Raises psycopg.Error."""
    rows: Rows = []
    while (result := wire.get_result()) is not None:
        if result.status != pq.ExecStatus.TUPLES_OK:
            state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            error = (
                lookup(state) if state in POOLER_ERRORS else psycopg.OperationalError
            )
            raise error(result.get_error_message())
        for row in range(result.ntuples):
            cells = range(result.nfields)
            rows.append(tuple(result.get_value(row, cell) or b"" for cell in cells))
    return rows
