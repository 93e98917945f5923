"""uvicorn's HTTP protocol with an end to waiting for slow clients (slowloris).

For `uvicorn --http config.protocol:Patient`: uvicorn itself waits for ever for the
headers of a request that has begun, for the first byte on a new connection, and for a
client to take its answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Patient(HttpToolsProtocol):
    """Closes connections whose request does not arrive in time."""

    begun = awaited = False
    """Whether a head has begun, and whether the rest of it is waited for."""
    waiting: asyncio.TimerHandle | None = None
    sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is awaited."""
        super().connection_made(transport)
        self.expect()

    def data_received(self, data: bytes) -> None:
        """A head that has begun and is not here at once has as long again."""
        super().data_received(data)
        if self.begun and not self.awaited:
            self.awaited = True
            self.expect()

    def on_message_begin(self) -> None:
        """A head begins."""
        self.begun, self.awaited = True, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is here; bodies are mcp_bridge/bodies.py's business."""
        self.begun = False
        self.stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for."""
        self.stop_waiting()
        self.taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes less than it gets."""
        super().pause_writing()
        self.taken()
        self.sending = self.loop.call_later(settings.SEND_TIMEOUT, self.cut)

    def resume_writing(self) -> None:
        """It has taken enough."""
        self.taken()
        super().resume_writing()

    def taken(self) -> None:
        """Nobody is waited for to take anything."""
        if self.sending is not None:
            self.sending.cancel()
            self.sending = None

    def cut(self) -> None:
        """End it by a reset: closing would keep what is to be sent, and wait for it."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def expect(self) -> None:
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
