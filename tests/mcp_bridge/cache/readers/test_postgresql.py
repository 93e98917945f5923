"""The reader's queue over a connection that a test answers by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import pq

from mcp_bridge.cache import readers
from mcp_bridge.cache.readers import postgresql
from mcp_bridge.cache.readers.base import (
    UNTRACKED,
    ChangeRow,
    DatabaseUnavailable,
    LogPosition,
)
from mcp_bridge.cache.readers.postgresql import PREPARED, PostgresReader

pytestmark = pytest.mark.once

Row = tuple[bytes | None, ...]


class Result:
    """A result of libpq."""

    def __init__(self, rows: list[Row], state: bytes | None = None) -> None:
        self.rows, self.state = rows, state
        good = state is None
        self.status = pq.ExecStatus.TUPLES_OK if good else pq.ExecStatus.FATAL_ERROR
        self.ntuples, self.nfields = len(rows), len(rows[0]) if rows else 0

    def error_field(self, field: int) -> bytes | None:
        assert field == pq.DiagnosticField.SQLSTATE
        return self.state

    def get_error_message(self) -> str:
        return f"refused {self.state!r}\n"

    def get_value(self, row: int, cell: int) -> bytes | None:
        return self.rows[row][cell]


class Wire:
    """Replaces libpq: `answer()` makes the socket readable."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.sent: list[str] = []
        self.results: list[Result] = []
        self.busy = self.finished = self.broken = False

    def fileno(self) -> int:
        return self.ours.fileno()

    @property
    def pgconn(self) -> Wire:
        return self

    def send_query_prepared(self, name: bytes, parameters: None) -> None:
        self.note(name.decode())

    def send_query_params(self, statement: bytes, parameters: None) -> None:
        self.note(statement.decode())

    def note(self, text: str) -> None:
        if self.broken:
            raise psycopg.OperationalError("broken pipe")
        self.sent.append(text)

    def flush(self) -> None:
        self.sent.append("flush")

    def consume_input(self) -> None:
        if self.ours.recv(100) == b"lost":
            raise psycopg.OperationalError("connection lost")

    def is_busy(self) -> bool:
        return self.busy

    def get_result(self) -> Result | None:
        return self.results.pop(0) if self.results else None

    async def answer(self, *results: Result, data: bytes = b"rows") -> None:
        self.results = list(results)
        self.theirs.send(data)
        for _ in range(5):
            await asyncio.sleep(0)

    def finish(self) -> None:
        self.finished = True
        self.ours.close()
        self.theirs.close()


class Server:
    """Counts connections; refuses them while it is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wires: list[Wire] = []
        self.away = False
        monkeypatch.setattr(PostgresReader, "connect", self.connect)

    async def connect(self, *_: Any) -> Wire:
        if self.away:
            raise psycopg.OperationalError("refused\n")
        self.wires.append(Wire())
        return self.wires[-1]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


Told = Callable[[PostgresReader], Coroutine[Any, Any, None]]


def with_reader(tell: Told) -> None:
    async def told() -> None:
        reader = PostgresReader({})
        try:
            await tell(reader)
        finally:
            reader.close()

    asyncio.run(told())


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def position(number: int) -> Result:
    return Result([(b"e", str(number).encode())])


LOOK = PREPARED.decode()


def test_a_reader_connects_once_and_asks_the_prepared_statement(
    server: Server,
) -> None:
    async def tell(reader: PostgresReader) -> None:
        first = [asyncio.create_task(reader.current_position()) for _ in range(3)]
        await turns()
        (wire,) = server.wires
        assert wire.sent == [LOOK, "flush"]
        await wire.answer(position(7))
        assert [task.result() for task in first] == [LogPosition("e", 7)] * 3
        second = asyncio.create_task(reader.current_position())
        await turns()
        await wire.answer(Result([]))
        assert second.result() == UNTRACKED and len(server.wires) == 1
        assert reader.replaced() is False

    with_reader(tell)


def test_no_caller_joins_a_read_that_was_sent_before_it_came(server: Server) -> None:
    async def tell(reader: PostgresReader) -> None:
        early = asyncio.create_task(reader.current_position())
        await turns()
        wire = server.wires[0]
        late = [asyncio.create_task(reader.current_position()) for _ in range(2)]
        await turns()
        assert wire.sent.count(LOOK) == 1, "one read at a time"
        await wire.answer(position(1))
        assert early.done() and not any(task.done() for task in late)
        assert wire.sent.count(LOOK) == 2
        await wire.answer(position(2))
        assert [task.result().number for task in late] == [2, 2]
        assert wire.sent.count(LOOK) == 2

    with_reader(tell)


def test_changes_are_read_before_the_next_position(server: Server) -> None:
    """Callers that wait for changes came first."""

    async def tell(reader: PostgresReader) -> None:
        first = asyncio.create_task(reader.current_position())
        await turns()
        wire = server.wires[0]
        look = asyncio.create_task(reader.current_position())
        after, upto = LogPosition("e", 3), LogPosition("e", 5)
        changes = asyncio.create_task(reader.changes_between(after, upto))
        await turns()
        await wire.answer(position(5))
        assert "number > 3 AND number <= 5 ORDER BY number" in wire.sent[-2]
        rows: list[Row] = [(b"4", b"user", b"7"), (b"5", b"all", None)]
        await wire.answer(Result(rows))
        assert changes.result() == [ChangeRow(4, "user", "7"), ChangeRow(5, "all", "")]
        await wire.answer(position(6))
        assert first.done() and look.result().number == 6

    with_reader(tell)


def test_an_answer_in_parts_is_awaited(server: Server) -> None:
    async def tell(reader: PostgresReader) -> None:
        task = asyncio.create_task(reader.current_position())
        await turns()
        wire = server.wires[0]
        wire.busy = True
        await wire.answer()
        assert not task.done()
        wire.busy = False
        await wire.answer(position(1))
        assert task.result().number == 1
        await wire.answer(position(9))
        assert reader.pending is None, "nobody asked"

    with_reader(tell)


def test_a_caller_that_left_is_skipped(server: Server) -> None:
    async def tell(reader: PostgresReader) -> None:
        first, second = (
            asyncio.create_task(reader.current_position()) for _ in range(2)
        )
        await turns()
        first.cancel()
        await turns()
        await server.wires[0].answer(position(1))
        assert second.result().number == 1
        third, fourth = (
            asyncio.create_task(reader.current_position()) for _ in range(2)
        )
        await turns()
        third.cancel()
        await turns()
        await server.wires[0].answer(data=b"lost")
        with pytest.raises(DatabaseUnavailable):
            await fourth

    with_reader(tell)


@pytest.mark.parametrize("how", ["lost", "refused", "not sent"])
def test_a_failure_reaches_every_waiting_caller_and_the_next_connects(
    server: Server, how: str
) -> None:
    async def tell(reader: PostgresReader) -> None:
        await reader_with_connection(reader, server)
        wire = server.wires[0]
        wire.broken = how == "not sent"
        waiting: list[asyncio.Task[Any]] = []
        waiting.append(asyncio.create_task(reader.current_position()))
        await turns()
        waiting += [
            asyncio.create_task(reader.current_position()),
            asyncio.create_task(reader.changes_between(UNTRACKED, UNTRACKED)),
        ]
        if how != "not sent":
            await turns()
            lost = how == "lost"
            results = [] if lost else [Result([], b"57P01")]
            await wire.answer(*results, data=b"lost" if lost else b"rows")
        await turns()
        if how == "not sent":
            assert waiting[0].done()
            await server.wires[1].answer(Result([]))
            await server.wires[1].answer(position(1))
            waiting = waiting[:1]
        for task in waiting:
            with pytest.raises(DatabaseUnavailable):
                await task
        assert wire.finished and reader.prepares
        again = asyncio.create_task(reader.current_position())
        await turns()
        await server.wires[1].answer(position(2))
        assert (await again).number == 2

    with_reader(tell)


async def reader_with_connection(reader: PostgresReader, server: Server) -> None:
    """Let the reader read once."""
    task = asyncio.create_task(reader.current_position())
    await turns()
    await server.wires[0].answer(position(1))
    await task


def test_an_unreachable_server_is_an_error_until_it_answers(server: Server) -> None:
    async def tell(reader: PostgresReader) -> None:
        server.away = True
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="^refused$"):
                await reader.current_position()
        assert reader.opening is None and reader.connection is None
        server.away = False
        await reader_with_connection(reader, server)

    with_reader(tell)


def test_a_silent_server_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgresql.READ_TIMEOUT == 5
    monkeypatch.setattr(postgresql, "READ_TIMEOUT", 0.01)

    async def tell(reader: PostgresReader) -> None:
        first = asyncio.create_task(reader.current_position())
        await turns()
        second = asyncio.create_task(reader.current_position())
        for task in (first, second):
            with pytest.raises(DatabaseUnavailable, match="no answer within 0.01 s"):
                await task
        assert server.wires[0].finished

    with_reader(tell)


def test_an_answer_stops_the_clock(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "READ_TIMEOUT", 0.01)

    async def tell(reader: PostgresReader) -> None:
        await reader_with_connection(reader, server)
        await asyncio.sleep(0.03)
        assert reader.connection is not None and not server.wires[0].finished
        server.wires[0].broken = True
        with pytest.raises(DatabaseUnavailable, match="broken pipe"):
            await reader.current_position()

    with_reader(tell)


@pytest.mark.parametrize(
    ("state", "prepares"),
    [("26000", False), ("42P05", False), ("08P01", False), ("57P01", True), ("", True)],
)
def test_behind_a_pooler_statements_are_not_prepared(
    server: Server, state: str, prepares: bool
) -> None:
    async def tell(reader: PostgresReader) -> None:
        task = asyncio.create_task(reader.current_position())
        await turns()
        await server.wires[0].answer(Result([], state.encode()))
        with pytest.raises(DatabaseUnavailable, match="refused"):
            await task
        assert reader.prepares is prepares
        again = asyncio.create_task(reader.current_position())
        await turns()
        asked = server.wires[1].sent[0]
        assert asked == LOOK if prepares else asked.startswith("SELECT epoch, number")
        await server.wires[1].answer(position(3))
        assert (await again).number == 3

    with_reader(tell)


class Opened:
    """A psycopg connection that notes its statements."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = False
        self.error: BaseException | None = None

    async def execute(self, statement: str) -> None:
        self.asked.append(statement)
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("prepares", [True, False])
@pytest.mark.parametrize(
    "error", [None, psycopg.OperationalError("no"), asyncio.CancelledError()]
)
def test_a_connection_is_prepared_or_closed(
    monkeypatch: pytest.MonkeyPatch, prepares: bool, error: BaseException | None
) -> None:
    """A connection that nobody uses would stay open in the server."""
    opened = Opened()
    asked: list[dict[str, Any]] = []
    opened.error = error

    async def connect(**parameters: Any) -> Opened:
        asked.append(parameters)
        return opened

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)

    async def tell() -> None:
        reader = PostgresReader({"host": "h", "connect_timeout": 5})
        reader.prepares = prepares
        if error is not None and prepares:
            with pytest.raises(type(error)):
                await reader.connect()
        else:
            found: Any = await reader.connect()
            assert found is opened

    asyncio.run(tell())
    assert asked == [{"host": "h", "connect_timeout": 5, "autocommit": True}]
    statement = "PREPARE portico_look AS SELECT epoch, number FROM"
    assert [text[: len(statement)] for text in opened.asked] == [statement] * prepares
    assert opened.closed is bool(error is not None and prepares)


@pytest.mark.parametrize("pooler", [True, False])
def test_the_reader_connects_as_django_does(
    monkeypatch: pytest.MonkeyPatch, settings: Any, pooler: bool
) -> None:
    """Without Django's own options, and for a bounded time."""
    settings.DATABASE_POOLER = pooler
    parameters = {"host": "h", "dbname": "d", "password": "p"}
    own = dict.fromkeys(("context", "cursor_factory", "prepare_threshold", "pool"))
    fake = SimpleNamespace(
        vendor="postgresql", get_connection_params=lambda: {**parameters, **own}
    )
    monkeypatch.setattr(readers, "connection", fake)
    reader = readers.open_reader()
    assert isinstance(reader, PostgresReader)
    assert reader.parameters == {**parameters, "connect_timeout": 5}
    assert reader.prepares is not pooler
    fake.get_connection_params = lambda: {"connect_timeout": 2}
    reader = readers.open_reader()
    assert isinstance(reader, PostgresReader)
    assert reader.parameters == {"connect_timeout": 2}
