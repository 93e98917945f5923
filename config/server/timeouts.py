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
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from config.server.idle_memory import shrink_connection
from config.server.unread_bodies import Refused, UnreadBodyProtocol
from config.server.upgrades import BodyParser, UpgradeParser

PIECE = 8192
"""Bytes parsed at a time, so that a limit is detected before much is stored."""
MOST_PIPELINED = 64
"""Pipelined requests that may wait on one connection."""
LINGER = 1.0
"""Seconds before a refused connection closes: a reset could destroy the response."""
LARGE_HEAD = (
    "The head of the request, or what stands between the parts of its body, is too "
    "large."
)


class TimeoutProtocol(UnreadBodyProtocol):
    """Closes connections whose request is too slow or too large."""

    begun = awaited = fresh = False
    """Whether a head has begun, whether its timer runs, and whether it began in the
    current piece."""
    upgrading: BodyParser | None = None
    """Parses the body after a head with `Upgrade`; the connection then ends."""
    unused = 0
    """Bytes since the parser last began a message or returned a part of a body."""
    waiting: asyncio.TimerHandle | None = None
    sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        shrink_connection(self)
        self.parser = UpgradeParser(self)  # type: ignore[assignment]
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Parse in pieces, and stop when a request is refused."""
        if len(data) <= PIECE and not self.deaf:
            self.parse(data)
            return
        for start in range(0, len(data), PIECE):
            if self.deaf or self.transport.is_closing() or self not in self.connections:
                return
            self.parse(data[start : start + PIECE])

    def parse(self, data: bytes) -> None:
        """Parse one piece. An incomplete head gets the whole HEAD_TIMEOUT again."""
        cycle = self.cycle
        before = 0 if cycle is None else len(cycle.body)
        self.fresh = False
        super().data_received(data)
        if self.deaf:
            # The connection closes after LINGER or after the last response.
            return
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
            # No request is in progress, and uvicorn has stopped its keep-alive timer.
            if self.waiting is None and self in self.connections:
                self._start_head_timer()
        elif self.unused > settings.MAX_HEAD_SIZE:
            self.refuse(431, LARGE_HEAD)

    def many_headers(self) -> bool:
        return len(self.headers) > settings.MAX_HEADERS

    def on_message_begin(self) -> None:
        self.begun = self.fresh = True
        self.awaited = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the head. mcp_bridge/http/request_body.py limits bodies."""
        if self.many_headers() or self.large_head():
            self.refuse(431, LARGE_HEAD)
            raise Refused
        if len(self.pipeline) >= MOST_PIPELINED:
            self.refuse(429, "Too many requests wait on this connection.")
            raise Refused
        upgrade = self.parser.should_upgrade() and not self._should_upgrade()
        headers = self.headers
        self.begun = False
        self.unused = 0
        self._stop_head_timer()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # otherwise the request is a WebSocket
            # The parser adds trailers here, but they are not headers (RFC 9110 6.5.1).
            self.headers = []
        if upgrade:
            self.cycle.keep_alive = False
            self.upgrading = BodyParser(self, self.scope["http_version"], headers)

    def on_message_complete(self) -> None:
        """Ignore the parser's end of a message with `Upgrade`: it ends too early."""
        if not self.parser.should_upgrade() or self._should_upgrade():
            super().on_message_complete()

    def on_body_complete(self) -> None:
        """The end of a message with `Upgrade`; parse nothing after it.

        The parser would take it for another protocol's data or, in the next piece, for
        a request. So a client could smuggle a request past a proxy.
        """
        self.deaf = True
        super().on_message_complete()

    def large_head(self) -> bool:
        """Whether the head is too large; counts its fields only if that is possible."""
        if self.unused <= settings.MAX_HEAD_SIZE - 2 * PIECE:
            return False
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.url) + fields > settings.MAX_HEAD_SIZE

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for data that is not HTTP."""
        self.refuse(400, msg)

    def refuse(self, status: int, text: str) -> None:
        """Stop parsing. Send the error unless it could pass for another response."""
        if self.deaf:
            return
        self.deaf, cycle = True, self.cycle
        if cycle is None or cycle.response_complete:
            self.respond(status, text)
        elif self.begun or self.pipeline or not cycle.more_body:
            # Earlier requests still wait for responses; the last one closes it.
            self._stop_head_timer()
            cycle.keep_alive = False
        elif cycle.response_started:
            self.transport.close()
        else:
            self.respond(status, text)
            cycle.disconnected = True
            cycle.message_event.set()

    def respond(self, status: int, text: str) -> None:
        """Write the error, and close the connection after LINGER seconds."""
        problem = {"error": "invalid_request", "error_description": text}
        body = json.dumps(problem).encode()
        lines = [
            *(b"%s: %s\r\n" % pair for pair in self.server_state.default_headers),
            b"content-type: application/json\r\ncache-control: no-store\r\n",
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body),
        ]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, body]))
        self._linger()

    def limit_rest(self) -> None:
        """The rest of an unread body has the time of a head."""
        self._start_head_timer()

    def hang_up(self) -> None:
        """End our side and ignore what still arrives, until LINGER seconds later."""
        self.deaf = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger()

    def _linger(self) -> None:
        self._stop_head_timer()
        self.waiting = self.loop.call_later(LINGER, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads too slowly: start the send timer."""
        super().pause_writing()
        self._stop_send_timer()
        self.sending = self.loop.call_later(settings.SEND_TIMEOUT, self._reset)

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def _stop_send_timer(self) -> None:
        if self.sending is not None:
            self.sending.cancel()
            self.sending = None

    def _reset(self) -> None:
        """Reset the connection: a close would wait until the buffer is sent."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _start_head_timer(self) -> None:
        self._stop_head_timer()
        self.waiting = self.loop.call_later(settings.HEAD_TIMEOUT, self._close)

    def _stop_head_timer(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
