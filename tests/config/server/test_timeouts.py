"""TimeoutProtocol without a server: what it parses, refuses, and when it gives up."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings
from uvicorn.config import Config
from uvicorn.server import ServerState

from config.server import timeouts
from config.server.timeouts import LINGER, PIECE, TimeoutProtocol

pytestmark = pytest.mark.once
HEAD_TIMEOUT, SEND_TIMEOUT, KEEP_ALIVE = 20.0, 60.0, 5.0
MAX_HEAD, MAX_HEADERS = 4 * PIECE, 60
PLAIN: dict[str, Any] = {"log_config": None, "proxy_headers": False, "lifespan": "off"}
LIMITS = override_settings(
    HEAD_TIMEOUT=HEAD_TIMEOUT,
    SEND_TIMEOUT=SEND_TIMEOUT,
    MAX_HEAD_SIZE=MAX_HEAD,
    MAX_HEADERS=MAX_HEADERS,
)
GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: h\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


class Timer:
    """A call that the test makes instead of the clock."""

    def __init__(self, delay: float, call: Callable[[], None]) -> None:
        self.delay, self.call, self.over = delay, call, False

    def cancel(self) -> None:
        self.over = True

    def fire(self) -> None:
        assert not self.over
        self.over = True
        self.call()


class Clock:
    """The running loop, except that timers wait for the test."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.create_task = asyncio.get_running_loop().create_task

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(delay, call))
        return self.timers[-1]

    @property
    def waiting(self) -> list[float]:
        return [timer.delay for timer in self.timers if not timer.over]

    def fire(self) -> None:
        """The only timer that waits."""
        (timer,) = [timer for timer in self.timers if not timer.over]
        timer.fire()


class Line(asyncio.Transport):
    """A transport that remembers what happened to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.ended, self.options = b"", list[str](), list[Any]()
        self.eofs = 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eofs += 1

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.ended.append("close")

    def abort(self) -> None:
        self.ended.append("abort")

    def is_closing(self) -> bool:
        return bool(self.ended)

    def pause_reading(self) -> None:
        """Read on: the test decides what arrives."""

    def resume_reading(self) -> None:
        """As above."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    getpeername = getsockname

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Connection:
    """A protocol, its transport and clock, and an application that waits for `go`."""

    def __init__(self, held: bool = False, early: bool = False) -> None:
        self.held, self.early = held, early
        self.scopes: list[Any] = []
        self.read: list[dict[str, Any]] = []
        self.go = asyncio.Event()
        self.line, self.clock = Line(), Clock()
        config = Config(self.app, interface="asgi3", ws="none", **PLAIN)
        self.state = ServerState()
        self.state.default_headers = [(b"x-all", b"1")]
        clock: Any = self.clock
        self.protocol = TimeoutProtocol(config, self.state, {}, clock)
        self.protocol.connection_made(self.line)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        start = {"type": "http.response.start", "status": 204, "headers": []}
        if self.early:
            await send(start)
        more = True
        while more:
            self.read.append(await receive())
            more = self.read[-1].get("more_body", False)
        if self.held:
            await self.go.wait()
        if not self.early:
            await send(start)
        await send({"type": "http.response.body", "body": b""})

    async def send(self, *pieces: bytes) -> None:
        """Each piece arrives alone; then the application runs until it waits."""
        for piece in pieces:
            self.protocol.data_received(piece)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    @property
    def statuses(self) -> list[str]:
        parts = self.line.sent.decode().split("HTTP/1.1 ")[1:]
        return [part[:3] for part in parts]

    @property
    def body(self) -> bytes:
        return b"".join(part.get("body", b"") for part in self.read)


def run(
    story: Callable[[Any], Any], kind: type[Connection] = Connection, **how: bool
) -> None:
    async def whole() -> None:
        it = kind(**how)
        try:
            await story(it)
        finally:
            it.protocol.connection_lost(None)
            it.go.set()
            await it.settle()

    with LIMITS:
        asyncio.run(whole())


def head(size: int) -> bytes:
    """A head whose URL and fields count `size` bytes, as `large_head` counts them."""
    filler = size - len("/") - len("host") - len("h") - 4 - len("x") - 4
    return b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"a" * filler + b"\r\n\r\n"


def heads(count: int) -> bytes:
    """A request line and `count` header lines, without the blank line."""
    return b"GET / HTTP/1.1\r\n" + b"x: 1\r\n" * count


def test_a_connection_without_a_request_is_closed() -> None:
    async def story(it: Connection) -> None:
        assert it.clock.waiting == [HEAD_TIMEOUT]
        it.clock.fire()
        assert it.line.ended == ["close"] and it.line.sent == b""

    run(story)


def test_no_timer_runs_while_a_request_is_answered() -> None:
    async def story(it: Connection) -> None:
        await it.send(GET)
        assert it.clock.waiting == [] and not it.line.ended
        it.go.set()
        await it.settle()
        assert it.statuses == ["204"] and it.clock.waiting == [KEEP_ALIVE]

    run(story, held=True)


@pytest.mark.parametrize("cuts", [[len(GET)], [5], [5, 20], [20]])
def test_every_request_of_a_connection_has_a_time_limit(cuts: list[int]) -> None:
    """The state of the first head, in one or several pieces, is reset after it."""

    async def story(it: Connection) -> None:
        bounds = [0, *cuts, len(GET)]
        pieces = [GET[a:b] for a, b in zip(bounds, bounds[1:], strict=False) if a < b]
        for count in (1, 2, 3):
            await it.send(*pieces)
            assert len(it.scopes) == count and it.clock.waiting == [KEEP_ALIVE]
            assert it.protocol.begun is False
        await it.send(GET[:9])
        assert it.clock.waiting == [HEAD_TIMEOUT]
        it.clock.fire()
        assert it.line.ended == ["close"] and len(it.scopes) == 3

    run(story)


def test_more_pieces_of_a_head_give_no_more_time() -> None:
    """Only the first piece of a head restarts the timer."""

    async def story(it: Connection) -> None:
        await it.send(GET[:5])
        (timer,) = [timer for timer in it.clock.timers if not timer.over]
        await it.send(*(GET[n : n + 1] for n in range(5, len(GET) - 1)))
        assert len(it.clock.timers) == 2 and not timer.over
        await it.send(GET[-1:])
        assert timer.over and it.statuses == ["204"]

    run(story)


@pytest.mark.parametrize("first", [b"", GET])
def test_blank_lines_between_requests_give_no_more_time(first: bytes) -> None:
    """uvicorn stops its keep-alive timer at any byte."""

    async def story(it: Connection) -> None:
        if first:
            await it.send(first)
        await it.send(b"\r\n")
        assert it.clock.waiting == [HEAD_TIMEOUT]
        before = len(it.clock.timers)
        await it.send(b"\r\n", b"\r\n")
        assert len(it.clock.timers) == before and it.clock.waiting == [HEAD_TIMEOUT]
        await it.send(GET)
        assert it.statuses[-1] == "204" and it.clock.waiting == [KEEP_ALIVE]

    run(story)


@pytest.mark.parametrize(("over", "status"), [(0, "204"), (1, "431")])
@pytest.mark.parametrize("alone", [True, False])
def test_a_whole_head_may_be_as_large_as_the_limit(
    over: int, status: str, alone: bool
) -> None:
    """RFC 6585 5; the head arrives at once or in pieces, first or second."""

    async def story(it: Connection) -> None:
        sent = head(MAX_HEAD + over)
        step = len(sent) if alone else 1000
        for repeat in (1, 2):
            await it.send(*(sent[n : n + step] for n in range(0, len(sent), step)))
            assert it.statuses == [status] * (1 if over else repeat)
        assert len(it.scopes) == (0 if over else 2)

    run(story)


def test_an_endless_head_is_refused_at_the_limit() -> None:
    """The first piece does not count, and the end of the head is not awaited."""

    async def story(it: Connection) -> None:
        await it.send(b"GET / HTTP/1.1\r\nx: ", b"a" * PIECE, b"a" * (3 * PIECE))
        assert it.line.sent == b"" and it.clock.waiting == [HEAD_TIMEOUT]
        await it.send(b"a")
        assert it.statuses == ["431"] and it.clock.waiting == [LINGER]

    run(story)


@pytest.mark.parametrize(("count", "status"), [(MAX_HEADERS, []), (61, ["431"])])
def test_an_unfinished_head_has_a_number_of_lines(
    count: int, status: list[str]
) -> None:
    async def story(it: Connection) -> None:
        # The parser reports a line when the next one begins.
        await it.send(heads(count) + b"y")
        assert it.statuses == status and it.scopes == []

    run(story)


@pytest.mark.parametrize(("count", "status"), [(MAX_HEADERS, "204"), (61, "431")])
def test_a_whole_head_has_a_number_of_lines(count: int, status: str) -> None:
    """RFC 6585 5."""

    async def story(it: Connection) -> None:
        await it.send(heads(count) + b"\r\n")
        assert it.statuses == [status] and len(it.scopes) == (status == "204")

    run(story)


def test_a_refusal_is_json_and_closes_a_little_later() -> None:
    """A reset could destroy the response, so the connection lingers."""

    async def story(it: Connection) -> None:
        await it.send(heads(61) + b"\r\n")
        start, _blank, body = it.line.sent.partition(b"\r\n\r\n")
        assert start.split(b"\r\n") == [
            b"HTTP/1.1 431 Request Header Fields Too Large",
            b"x-all: 1",
            b"content-type: application/json",
            b"cache-control: no-store",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        problem = {
            "error": "invalid_request",
            "error_description": timeouts.LARGE_HEAD,
        }
        assert json.loads(body) == problem
        assert it.clock.waiting == [LINGER] == [1.0] and not it.line.ended
        await it.send(GET, b"a" * (2 * PIECE))
        assert it.statuses == ["431"] and it.clock.waiting == [1.0]
        it.clock.fire()
        assert it.line.ended == ["close"] and it.scopes == []

    run(story)


@pytest.mark.parametrize("sent", [b"\x00\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_400(sent: bytes) -> None:
    async def story(it: Connection) -> None:
        await it.send(sent)
        assert it.statuses == ["400"] and b"Invalid HTTP request" in it.line.sent
        assert b'"error": "invalid_request"' in it.line.sent
        await it.send(GET)
        assert it.scopes == [] and it.statuses == ["400"]

    run(story)


def test_a_body_may_be_larger_than_a_head() -> None:
    """Each part of a body that arrives resets what is counted."""

    async def story(it: Connection) -> None:
        size = 3 * MAX_HEAD
        await it.send(POST + b"content-length: %d\r\n\r\n" % size)
        await it.send(*[b"b" * 1000] * (size // 1000), b"b" * (size % 1000))
        assert it.statuses == ["204"] and len(it.body) == size

    run(story)


def test_a_body_that_nobody_reads_is_counted_too() -> None:
    """The bytes wait in the cycle, and each piece of them is progress."""

    async def story(it: Connection) -> None:
        await it.send(POST + b"content-length: 200000\r\n\r\n")
        for _ in range(20):
            it.protocol.data_received(b"b" * PIECE)
        assert it.line.sent == b"" and not it.line.ended

    run(story)


@pytest.mark.parametrize(("over", "statuses"), [(0, []), (1, ["431"])])
def test_what_stands_between_the_parts_of_a_body_is_bounded(
    over: int, statuses: list[str]
) -> None:
    """RFC 9112 7.1.1: chunk extensions."""

    async def story(it: Connection) -> None:
        await it.send(CHUNKED, b"1;x=" + b"a" * (MAX_HEAD - 4), b"a" * over)
        assert it.statuses == statuses
        if statuses:
            assert it.clock.waiting == [LINGER]
            assert it.read[-1] == {"type": "http.disconnect"}
            assert it.protocol.cycle.disconnected

    run(story, held=True)


def test_a_part_of_a_body_starts_the_count_again() -> None:
    async def story(it: Connection) -> None:
        extension = b"1;x=" + b"a" * (MAX_HEAD - 100)
        await it.send(CHUNKED, extension, b"\r\nb\r\n", extension, b"\r\nb\r\n")
        assert it.statuses == [] and it.body == b"bb"
        await it.send(b"0\r\n\r\n")
        assert it.statuses == ["204"]

    run(story)


def test_trailers_are_no_headers_and_are_bounded() -> None:
    """RFC 9110 6.5.1."""

    async def story(it: Connection) -> None:
        await it.send(CHUNKED + b"0\r\nx-user: carol\r\n\r\n")
        assert it.statuses == ["204"]
        names = [name for name, _value in it.scopes[0]["headers"]]
        assert names == [b"host", b"transfer-encoding"]
        await it.send(CHUNKED + b"0\r\n", b"x: " + b"a" * MAX_HEAD)
        assert it.statuses == ["204", "431"]

    run(story)


def test_a_request_too_large_after_its_response_began_is_cut() -> None:
    """Another status would pass for a part of the response."""

    async def story(it: Connection) -> None:
        await it.send(CHUNKED)
        assert it.statuses == ["204"] and it.protocol.cycle.response_started
        sent = it.line.sent
        await it.send(b"1;x=" + b"a" * (MAX_HEAD + 1))
        assert it.line.ended == ["close"] and it.line.sent == sent

    run(story, early=True)


def test_a_refusal_waits_for_the_responses_before_it() -> None:
    """The second request is refused, the first one gets its response."""

    async def story(it: Connection) -> None:
        await it.send(GET)
        await it.send(heads(61) + b"\r\n")
        assert it.line.sent == b"" and it.clock.waiting == [] and not it.line.ended
        it.go.set()
        await it.settle()
        assert it.statuses == ["204"] and b"connection: close" in it.line.sent
        assert it.line.ended == ["close"] and len(it.scopes) == 1

    run(story, held=True)


def test_garbage_behind_pipelined_requests_lets_them_finish() -> None:
    async def story(it: Connection) -> None:
        await it.send(GET + GET + b"\x00\r\n\r\n")
        assert it.line.sent == b"" and len(it.protocol.pipeline) == 1
        it.go.set()
        await it.settle()
        await it.settle()
        assert it.statuses == ["204", "204"] and it.line.ended == ["close"]

    run(story, held=True)


@pytest.mark.parametrize(("waiting", "kept"), [(2, True), (3, False)])
def test_only_some_requests_wait_on_one_connection(
    monkeypatch: pytest.MonkeyPatch, waiting: int, kept: bool
) -> None:
    assert timeouts.MOST_PIPELINED == 64
    monkeypatch.setattr(timeouts, "MOST_PIPELINED", 2)

    async def story(it: Connection) -> None:
        await it.send(GET * (1 + waiting))
        assert len(it.protocol.pipeline) == 2 and it.protocol.deaf is not kept
        it.go.set()
        for _ in range(3):
            await it.settle()
        assert it.statuses == ["204"] * 3
        assert it.line.ended == ([] if kept else ["close"])

    run(story, held=True)


UPGRADE = b"connection: upgrade\r\nupgrade: %b\r\n"


@pytest.mark.parametrize("name", [b"h2c", b"websocket"])
@pytest.mark.parametrize("together", [True, False])
def test_nothing_is_read_behind_a_request_to_upgrade(
    name: bytes, together: bool
) -> None:
    """RFC 9112 11.2: otherwise a client could smuggle a request past a proxy."""

    async def story(it: Connection) -> None:
        asks = GET[:-2] + UPGRADE % name + b"\r\n"
        await it.send(*([asks + GET] if together else [asks, GET]))
        assert len(it.scopes) == 1 and it.statuses == ["204"]
        assert b"connection: close" in it.line.sent and it.line.ended == ["close"]
        assert it.clock.waiting == []

    run(story)


FRAMED = [
    (b"content-length: 5\r\n", b"hello"),
    (b"Content-Length: 5\r\n", b"hello"),
    (b"transfer-encoding: chunked\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    (b"content-length: 0\r\n", b""),
    (b"", b""),
]


@pytest.mark.spec("RFC 9110 7.8: an Upgrade may be ignored")
@pytest.mark.parametrize("name", [b"h2c", b"websocket", b"TLS/1.0, any"])
@pytest.mark.parametrize(("fields", "sent"), FRAMED)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_upgrade_is_ignored_and_its_body_served(
    name: bytes, fields: bytes, sent: bytes, size: int
) -> None:
    """In one piece and in many; bytes after it are not parsed."""

    async def story(it: Connection) -> None:
        asks = POST + UPGRADE % name + fields + b"\r\n" + sent + GET
        await it.send(*(asks[i : i + size] for i in range(0, len(asks), size)))
        assert it.body == (b"hello" if sent else b"")
        assert len(it.scopes) == 1 and it.statuses == ["204"]
        assert (b"upgrade", name) in it.scopes[0]["headers"]
        assert b"connection: close" in it.line.sent and it.line.ended == ["close"]
        assert it.clock.waiting == []

    run(story)


def test_the_body_of_an_upgrade_is_awaited() -> None:
    """The application reads what has arrived, and answers only when it is complete."""

    async def story(it: Connection) -> None:
        await it.send(POST + UPGRADE % b"h2c" + b"content-length: 5\r\n\r\n", b"he")
        assert it.body == b"he" and it.statuses == []
        await it.send(b"llo" + GET)
        assert it.body == b"hello" and it.statuses == ["204"]

    run(story)


@pytest.mark.parametrize(
    "fields",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: x\r\n",
        b"transfer-encoding: gzip\r\n",
    ],
)
def test_a_body_without_a_clear_end_is_400_with_upgrade_too(fields: bytes) -> None:
    """RFC 9112 6.3"""

    async def story(it: Connection) -> None:
        await it.send(POST + UPGRADE % b"h2c" + fields + b"\r\nhello" + GET)
        assert it.statuses == ["400"] and it.body == b""

    run(story)


@pytest.mark.parametrize(
    "whole",
    [b"NOT HTTP\r\n\r\n", POST + b"content-length: x\r\n\r\n"],
    ids=["garbage", "a body without a length"],
)
@pytest.mark.parametrize("first", [b"", GET])
def test_a_request_refused_in_one_piece_closes_a_little_later(
    first: bytes, whole: bytes
) -> None:
    """A head that has just begun gets no time for the rest."""

    async def story(it: Connection) -> None:
        await it.send(*([first] if first else []), whole)
        assert it.statuses[-1] == "400" and it.clock.waiting == [LINGER]
        it.clock.fire()
        assert it.line.ended == ["close"]

    run(story)


@pytest.mark.parametrize("last", [b"NOT HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n" * 9])
def test_a_refused_request_does_not_end_the_one_before_it(last: bytes) -> None:
    """No timer closes the connection before the response."""

    async def story(it: Connection) -> None:
        await it.send(GET + last)
        assert it.clock.waiting == [] and it.line.ended == []
        it.go.set()
        await it.settle()
        assert it.statuses == ["204"] and it.line.ended == ["close"]

    run(story, held=True)


class OtherProtocol:
    """What a WebSocket library would be."""

    def __init__(self, **_options: Any) -> None:
        self.got = b""

    def connection_made(self, line: Any) -> None:
        self.line = line

    def data_received(self, data: bytes) -> None:
        self.got += data


def test_a_websocket_is_handed_over_with_its_headers() -> None:
    """The connection is then no longer ours: no timer, no further parsing."""

    async def story(it: Connection) -> None:
        it.protocol.ws_protocol_class = OtherProtocol  # type: ignore[assignment]
        asks = GET[:-2] + UPGRADE % b"websocket" + b"\r\n"
        await it.send(asks + b"x" * (2 * PIECE))
        other: Any = it.line.protocol
        assert b"upgrade: websocket" in other.got and it.scopes == []
        assert it.clock.waiting == [] and it.line.sent == b"" and not it.line.ended

    run(story)


def test_nothing_is_parsed_after_a_connection_closes() -> None:
    async def story(it: Connection) -> None:
        it.line.close()
        await it.send(b"\r\n" * PIECE + GET)
        assert it.scopes == []

    run(story)


def test_the_end_of_a_connection_stops_both_timers() -> None:
    async def story(it: Connection) -> None:
        it.protocol.pause_writing()
        assert it.clock.waiting == [HEAD_TIMEOUT, SEND_TIMEOUT]
        it.protocol.connection_lost(None)
        assert it.clock.waiting == [] and it.protocol not in it.state.connections

    run(story)


def test_a_client_that_does_not_read_is_reset() -> None:
    """An ordinary close would wait until the buffer is sent."""

    async def story(it: Connection) -> None:
        await it.send(GET)
        it.protocol.pause_writing()
        it.protocol.pause_writing()
        assert it.protocol.flow.write_paused and it.clock.waiting == [SEND_TIMEOUT]
        it.clock.fire()
        assert it.line.ended == ["abort"]
        linger = struct.pack("ii", 1, 0)
        assert it.line.options == [(socket.SOL_SOCKET, socket.SO_LINGER, linger)]

    run(story, held=True)


def test_a_client_that_reads_again_is_kept() -> None:
    async def story(it: Connection) -> None:
        await it.send(GET)
        it.protocol.pause_writing()
        it.protocol.resume_writing()
        assert not it.protocol.flow.write_paused and it.clock.waiting == []
        it.protocol.pause_writing()
        assert it.clock.waiting == [SEND_TIMEOUT]

    run(story, held=True)


def test_a_closed_connection_is_not_closed_again() -> None:
    async def story(it: Connection) -> None:
        it.line.close()
        it.clock.fire()
        assert it.line.ended == ["close"]

    run(story)


def test_the_bytes_of_a_head_do_not_count_for_the_body() -> None:
    async def story(it: Connection) -> None:
        fields = CHUNKED[:-2] + b"x: " + b"a" * (MAX_HEAD - 1000) + b"\r\n\r\n"
        await it.send(*(fields[n : n + 1000] for n in range(0, len(fields), 1000)))
        await it.send(b"1;x=" + b"a" * (MAX_HEAD - 1000), b"\r\nb\r\n0\r\n\r\n")
        assert it.statuses == ["204"] and it.body == b"b"

    run(story)


def test_garbage_in_a_waiting_request_is_not_answered_first() -> None:
    """Its error would pass for the response to the request before it."""

    async def story(it: Connection) -> None:
        await it.send(GET, CHUNKED, b"no size\r\n")
        assert it.protocol.deaf and it.line.sent == b"" and not it.line.ended

    run(story, held=True)


def test_nothing_is_read_after_hanging_up() -> None:
    """What still arrives is ignored until the connection closes."""

    async def story(it: Connection) -> None:
        it.protocol.hang_up()
        await it.send(GET, b"NOT HTTP\r\n\r\n")
        assert it.scopes == [] and it.line.sent == b"" and it.line.eofs == 1
        assert it.clock.waiting == [LINGER]
        it.clock.fire()
        assert it.line.ended == ["close"]

    run(story)
