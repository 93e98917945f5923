"""uvicorn's HTTP protocol, closing a connection only after the request was read.

A response may leave before the body of its request was read (401, 413, 429). If the
connection closed at once, the kernel would reset it. The client could lose the
response, and a proxy would report 502 and take the process for broken (RFC 9112 9.6).
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from config.server.idle_memory import SmallEvent

MOST_DISCARDED = 64 * 1024 * 1024
"""Bytes of a body that are read after its response; then the connection is closed."""


class Refused(Exception):
    """Stops the parser: nothing more is read from this connection."""


class ResponseTransport:
    """What a response is written to. Its `close` waits for the rest of the request."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, protocol: UnreadBodyProtocol) -> None:
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing
        self.close = protocol.close_after_body


class UnreadBodyProtocol(HttpToolsProtocol):
    """Reads and discards the rest of a body whose response has been sent."""

    receiving = closing = deaf = False
    """Whether a body is incomplete, whether the connection closes after it, and
    whether all further data is ignored."""
    discarded = 0
    """Bytes of the present body that were discarded."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.receiving and self.cycle.response_complete:
            self.discarded += len(data)
            if self.discarded > MOST_DISCARDED:
                self.receiving = False
                self.hang_up()

    def on_headers_complete(self) -> None:
        if self.deaf:
            raise Refused
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # otherwise the request is a WebSocket
            self.receiving, self.discarded = True, 0
            self.cycle.transport = ResponseTransport(self)  # type: ignore[assignment]
            self.cycle.message_event = SmallEvent()  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.receiving = False
        if self.closing:
            self.deaf = True
            self.transport.close()

    def close_after_body(self) -> None:
        """Close now or, if a body is incomplete, when the rest of it was discarded."""
        if not self.receiving:
            self.transport.close()
        elif not self.closing:
            self.closing = True
            # uvicorn stores no more of the body, and starts no request that waits.
            self.cycle.response_complete = True
            self.pipeline.clear()
            self.flow.resume_reading()
            self.limit_rest()

    def on_response_complete(self) -> None:
        if self.closing:
            self.server_state.total_requests += 1
        else:
            super().on_response_complete()

    def shutdown(self) -> None:
        """Let a client that still sends its body read the response to it."""
        if self.receiving and self.cycle.response_complete:
            self.close_after_body()
        else:
            super().shutdown()

    def limit_rest(self) -> Any:
        """Start a timer for the rest of the body."""
        raise NotImplementedError

    def hang_up(self) -> Any:
        """Close the connection although the body is incomplete."""
        raise NotImplementedError
