"""uvloop that accepts several connections before it serves the next requests.

Used by `uvicorn --loop config.server.event_loop:AcceptingLoop`. libuv accepts one
connection a round, and a round serves every request that has arrived. If many clients
connect to a busy process at once, the last of them waits for as many rounds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop

AT_ONCE = 16
"""Further connections that one round accepts.

A limit, because several workers share a listening socket: the first one that looks
would take every waiting connection.
"""
ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class AcceptingLoop(uvloop.Loop):
    """The loop of a server process."""

    async def create_server(
        self, protocol_factory: ProtocolFactory, *args: Any, **options: Any
    ) -> Any:
        factory = AcceptingFactory(self, protocol_factory, options.get("ssl"))
        server: Any = await super().create_server(factory, *args, **options)
        factory.listeners = [listener.fileno() for listener in server.sockets]
        return server

    async def create_unix_server(
        self, protocol_factory: ProtocolFactory, *args: Any, **options: Any
    ) -> Any:
        factory = AcceptingFactory(self, protocol_factory, options.get("ssl"))
        server: Any = await super().create_unix_server(factory, *args, **options)
        factory.listeners = [listener.fileno() for listener in server.sockets]
        return server


class AcceptingFactory:
    """Makes the protocol of an accepted connection, and accepts those that wait."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, factory: ProtocolFactory, ssl: Any
    ) -> None:
        self.loop, self.factory, self.ssl = loop, factory, ssl
        self.listeners: list[int] = []
        self.opening: set[asyncio.Task[None]] = set()

    def __call__(self) -> asyncio.BaseProtocol:
        """Called by libuv's listener, so its descriptor is open."""
        for descriptor in self.listeners:
            listener = socket.socket(fileno=descriptor)
            try:
                self.accept(listener)
            finally:
                listener.detach()
        return self.factory()

    def accept(self, listener: socket.socket) -> None:
        """Accept until none waits; libuv handles what goes wrong at its next."""
        with suppress(OSError):
            for _ in range(AT_ONCE):
                connection, _address = listener.accept()
                task = self.loop.create_task(self.open(connection))
                self.opening.add(task)
                task.add_done_callback(self.opening.discard)

    async def open(self, connection: socket.socket) -> None:
        """Serve the connection, unless it is lost already."""
        connection.setblocking(False)
        try:
            await self.loop.connect_accepted_socket(
                self.factory, connection, ssl=self.ssl
            )
        except OSError:
            connection.close()
