"""uvicorn's HTTP protocol with timeouts for slow clients (slowloris) and size limits.

Used by `uvicorn --http config.server.timeouts:TimeoutProtocol`. uvicorn alone has no
timeout for the first byte of a connection, for the rest of a head, or for a client that
does not read its response. It also stores a head of any size, at a cost that grows
with the square of the size.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

PIECE = 8192
"""Bytes parsed at a time, so that a limit is noticed before much is kept."""
MOST_PIPELINED = 64
"""Requests that may wait on a connection for the answers before theirs."""
LINGER = 1.0
"""Seconds a refused client may go on sending: a reset could cost it the answer."""
LARGE_HEAD = (
    "The head of the request, or what stands between the parts of its body, is too "
    "large."
)


NO_UPGRADE = "This server changes to no other protocol: leave out Upgrade."


class Refused(Exception):
    """Stops the parser: the connection ends, and its client has been told."""


class TimeoutProtocol(HttpToolsProtocol):
    """Closes connections whose request does not arrive in time, or not in bounds."""

    begun = awaited = fresh = deaf = False
    """Whether a head has begun, whether the rest of it is waited for, whether it began
    in the piece being parsed, and whether nothing more is parsed."""
    unused = 0
    """Bytes since the parser last began a message or gave a part of a body."""
    waiting: asyncio.TimerHandle | None = None
    sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is awaited."""
        super().connection_made(transport)
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Parse it piece by piece, until the client is refused."""
        if len(data) <= PIECE and not self.deaf:
            self.parse(data)
            return
        for start in range(0, len(data), PIECE):
            if self.deaf or self.transport.is_closing() or self not in self.connections:
                return
            self.parse(data[start : start + PIECE])

    def parse(self, data: bytes) -> None:
        """One piece. A head that is not here at once has as long again."""
        cycle = self.cycle
        before = 0 if cycle is None else len(cycle.body)
        self.fresh = False
        super().data_received(data)
        if self.fresh or (cycle is not None and len(cycle.body) > before):
            self.unused = 0
        else:
            self.unused += len(data)
        if self.begun:
            if self.unused > settings.MAX_HEAD_SIZE or self.many_headers():
                self.refuse(431, LARGE_HEAD)
            elif not self.awaited:
                self.awaited = True
                self._start_head_timer()
        elif self.cycle is None or self.cycle.response_complete:
            # No request is under way, and uvicorn has stopped its own clock.
            if self.waiting is None and not self.deaf and self in self.connections:
                self._start_head_timer()
        elif self.unused > settings.MAX_HEAD_SIZE:
            self.refuse(431, LARGE_HEAD)

    def many_headers(self) -> bool:
        """Whether there are more header lines than allowed."""
        return len(self.headers) > settings.MAX_HEADERS

    def on_message_begin(self) -> None:
        """A head begins."""
        self.begun = self.fresh = True
        self.awaited = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is here; bodies are mcp_bridge/http/request_body.py's business."""
        if self.many_headers() or self.large_head():
            self.refuse(431, LARGE_HEAD)
            raise Refused
        if len(self.pipeline) >= MOST_PIPELINED:
            self.refuse(429, "Too many requests wait on this connection.")
            raise Refused
        last = self.parser.should_upgrade() and not self._should_upgrade()
        if last and self.announces_body():
            self.refuse(400, NO_UPGRADE)
            raise Refused
        self.begun = False
        self.unused = 0
        self.stop_waiting()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # else it becomes a WebSocket
            # Trailers come by the same callback; they are no headers (RFC 9110 6.5.1).
            self.headers = []
        if last:
            # The parser takes what follows for another protocol's, or, in the next
            # piece, for a request: a proxy could be made to send one it never saw.
            self.deaf, self.cycle.keep_alive = True, False

    def announces_body(self) -> bool:
        """Whether the head says that a body follows."""
        fields = dict(self.headers)
        length = fields.get(b"content-length", b"0").strip(b" \t")
        return b"transfer-encoding" in fields or length.strip(b"0") != b""

    def large_head(self) -> bool:
        """Whether the head is too large; counted only where it may be."""
        if self.unused <= settings.MAX_HEAD_SIZE - 2 * PIECE:
            return False
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.url) + fields > settings.MAX_HEAD_SIZE

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self.refuse(400, msg)

    def refuse(self, status: int, text: str) -> None:
        """Parse nothing more; say why where that cannot be taken for another answer."""
        if self.deaf:
            return
        self.deaf, cycle = True, self.cycle
        if cycle is None or cycle.response_complete:
            self.say(status, text)
        elif self.begun or self.pipeline or not cycle.more_body:
            # Requests before this one wait for their answers: the last ends it.
            self.stop_waiting()
            cycle.keep_alive = False
        elif cycle.response_started:
            self.transport.close()
        else:
            self.say(status, text)
            cycle.disconnected = True
            cycle.message_event.set()

    def say(self, status: int, text: str) -> None:
        """Answer, and close the connection a little later."""
        problem = {"error": "invalid_request", "error_description": text}
        body = json.dumps(problem).encode()
        lines = [
            *(b"%s: %s\r\n" % pair for pair in self.server_state.default_headers),
            b"content-type: application/json\r\ncache-control: no-store\r\n",
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body),
        ]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, body]))
        self.stop_waiting()
        self.waiting = self.loop.call_later(LINGER, self.give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for."""
        self.stop_waiting()
        self._stop_send_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes less than it gets."""
        super().pause_writing()
        self._stop_send_timer()
        self.sending = self.loop.call_later(settings.SEND_TIMEOUT, self._reset)

    def resume_writing(self) -> None:
        """It has taken enough."""
        self._stop_send_timer()
        super().resume_writing()

    def _stop_send_timer(self) -> None:
        """Nobody is waited for to take anything."""
        if self.sending is not None:
            self.sending.cancel()
            self.sending = None

    def _reset(self) -> None:
        """End it by a reset: closing would keep what is to be sent, and wait for it."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _start_head_timer(self) -> None:
        """Begin to wait."""
        self.stop_waiting()
        self.waiting = self.loop.call_later(settings.HEAD_TIMEOUT, self.give_up)

    def stop_waiting(self) -> None:
        """Enough."""
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    def give_up(self) -> None:
        """Too slow."""
        if not self.transport.is_closing():
            self.transport.close()
