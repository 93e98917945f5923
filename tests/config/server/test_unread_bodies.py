"""A response that leaves before its body was read: the rest is read, then it closes."""

from __future__ import annotations

from typing import Any

import pytest

from config.server import unread_bodies
from config.server.timeouts import LINGER, PIECE
from tests.config.server.test_timeouts import (
    CHUNKED,
    GET,
    HEAD_TIMEOUT,
    KEEP_ALIVE,
    POST,
    Connection,
    run,
)

pytestmark = pytest.mark.once
SIZE = 20 * PIECE
CLOSE = b"connection: close\r\n"


class Refusing(Connection):
    """An application that answers 401 without reading."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if self.held:
            await self.go.wait()
        headers = [(b"content-length", b"2")]
        if scope["path"] == "/last":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})


def declared(size: int, *fields: bytes) -> bytes:
    return b"".join([POST, b"content-length: %d\r\n" % size, *fields, b"\r\n"])


def chunk(size: int) -> bytes:
    return b"%x\r\n" % size + b"b" * size + b"\r\n"


def pieces_of(kind: str) -> tuple[bytes, list[bytes]]:
    """(head, body) of a request whose connection ends after it."""
    if kind == "chunked":
        head = CHUNKED[:-2] + CLOSE + b"\r\n"
        return head, [chunk(PIECE)] * 20 + [b"0\r\n\r\n"]
    if kind == "HTTP/1.0":
        head = declared(SIZE).replace(b"HTTP/1.1", b"HTTP/1.0")
        return head, [b"b" * PIECE] * 20
    return declared(SIZE, CLOSE), [b"b" * PIECE] * 20


@pytest.mark.parametrize("kind", ["declared", "chunked", "HTTP/1.0"])
def test_the_connection_closes_after_the_body(kind: str) -> None:
    """RFC 9112 9.6: a close with unread data is a reset."""

    async def story(it: Refusing) -> None:
        head, body = pieces_of(kind)
        await it.send(head, *body[:-1])
        assert it.statuses == ["401"] and not it.line.ended
        assert it.clock.waiting == [HEAD_TIMEOUT]
        await it.send(body[-1])
        assert it.line.ended == ["close"] and it.state.total_requests == 1

    run(story, Refusing)


def test_a_body_that_arrived_before_its_response_is_not_awaited() -> None:
    async def story(it: Refusing) -> None:
        await it.send(declared(3, CLOSE) + b"bbb")
        assert it.statuses == ["401"] and it.line.ended == ["close"]

    run(story, Refusing)


def test_the_next_request_follows_the_rest_of_the_body() -> None:
    """RFC 9112 9.3: the connection stays open and in step."""

    async def story(it: Refusing) -> None:
        await it.send(declared(SIZE), *[b"b" * PIECE] * 19)
        assert it.statuses == ["401"]
        await it.send(b"b" * PIECE + GET)
        assert it.statuses == ["401", "401"] and not it.line.ended
        assert it.clock.waiting == [KEEP_ALIVE]

    run(story, Refusing)


def test_nothing_is_served_behind_a_body_after_which_the_connection_closes() -> None:
    """Its response could not be sent any more."""

    async def story(it: Refusing) -> None:
        await it.send(declared(5, CLOSE), b"bbbbb" + GET + GET)
        assert len(it.scopes) == 1 and it.line.ended == ["close"]

    run(story, Refusing)


def test_a_request_that_waits_is_not_served_after_the_close() -> None:
    """The body of a pipelined request is read and discarded, too."""

    async def story(it: Refusing) -> None:
        last = GET.replace(b"GET /", b"GET /last")
        await it.send(last, declared(SIZE), b"b" * PIECE)
        it.go.set()
        await it.settle()
        assert it.statuses == ["401"] and not it.line.ended
        await it.send(*[b"b" * PIECE] * 19)
        assert len(it.scopes) == 1 and it.line.ended == ["close"]

    run(story, Refusing, held=True)


@pytest.mark.parametrize("fields", [CLOSE, b""])
def test_an_endless_body_is_read_up_to_a_limit(
    fields: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The side of the server ends first, so that the client can read the response."""
    assert unread_bodies.MOST_DISCARDED >= 16 * 1024 * 1024
    monkeypatch.setattr(unread_bodies, "MOST_DISCARDED", 4 * PIECE)

    async def story(it: Refusing) -> None:
        await it.send(CHUNKED[:-2] + fields + b"\r\n", *[chunk(PIECE - 20)] * 4)
        assert it.line.eofs == 0
        await it.send(chunk(PIECE), chunk(PIECE), GET)
        assert it.line.eofs == 1 and it.clock.waiting == [LINGER]
        it.clock.fire()
        assert it.line.ended == ["close"] and len(it.scopes) == 1

    run(story, Refusing)


def test_a_slow_rest_of_a_body_is_not_awaited_for_ever() -> None:
    async def story(it: Refusing) -> None:
        await it.send(declared(SIZE, CLOSE), *[b"b"] * 3)
        assert it.clock.waiting == [HEAD_TIMEOUT]
        it.clock.fire()
        assert it.line.ended == ["close"]

    run(story, Refusing)


def test_a_stopping_server_reads_the_rest_of_the_body() -> None:
    async def story(it: Refusing) -> None:
        await it.send(declared(SIZE), b"b" * PIECE)
        it.protocol.shutdown()
        assert it.statuses == ["401"] and not it.line.ended
        await it.send(*[b"b" * PIECE] * 19)
        assert it.line.ended == ["close"]

    run(story, Refusing)


def test_a_stopping_server_closes_an_idle_connection() -> None:
    async def story(it: Refusing) -> None:
        await it.send(GET)
        it.protocol.shutdown()
        assert it.line.ended == ["close"]

    run(story, Refusing)
