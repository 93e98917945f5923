"""Clients that connect at once are accepted before most of them are served."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.server.event_loop import AT_ONCE, AcceptingFactory, AcceptingLoop
from tests.support.proxy_files import certificates

pytestmark = pytest.mark.once


class Counting(asyncio.Protocol):
    """Counts connections and requests, and the former at the second request."""

    def __init__(self, seen: dict[str, int]) -> None:
        self.seen = seen

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.seen["made"] += 1

    def data_received(self, data: bytes) -> None:
        self.seen["served"] += 1
        if self.seen["served"] == 2:
            self.seen["made before"] = self.seen["made"]
        self.transport.write(data)
        self.transport.close()


@pytest.fixture
def loop() -> Iterator[AcceptingLoop]:
    made = AcceptingLoop()
    try:
        yield made
    finally:
        made.close()


async def burst(server: Any, connect: Callable[[], socket.socket], count: int) -> int:
    """Connect this often while the loop does nothing; the number of answers."""
    clients = [connect() for _ in range(count)]
    for client in clients:
        client.sendall(b"x")
        client.setblocking(False)
    loop = asyncio.get_running_loop()
    work = [asyncio.wait_for(loop.sock_recv(client, 1), 20) for client in clients]
    answers = await asyncio.gather(*work)
    for client in clients:
        client.close()
    server.close()
    await server.wait_closed()
    return answers.count(b"x")


def test_a_burst_is_accepted_before_it_is_served(loop: AcceptingLoop) -> None:
    seen = {"made": 0, "served": 0}

    async def story() -> int:
        server = await loop.create_server(lambda: Counting(seen), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        return await burst(server, lambda: socket.create_connection(address, 5), 8)

    assert loop.run_until_complete(story()) == 8
    assert seen == {"made": 8, "served": 8, "made before": 8}


def test_one_process_leaves_a_part_of_a_large_burst_to_others(
    loop: AcceptingLoop, tmp_path: Path
) -> None:
    """Each round accepts what libuv does, and at most AT_ONCE more."""
    seen = {"made": 0, "served": 0}
    path = str(tmp_path / "socket")

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        return client

    async def story() -> int:
        server = await loop.create_unix_server(lambda: Counting(seen), path)
        return await burst(server, connect, 3 * AT_ONCE)

    assert loop.run_until_complete(story()) == 3 * AT_ONCE
    assert seen["made"] == 3 * AT_ONCE
    assert AT_ONCE < seen["made before"] < 3 * AT_ONCE


def test_each_connection_of_a_burst_has_tls(
    loop: AcceptingLoop, tmp_path: Path
) -> None:
    certificate, key = certificates(tmp_path)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.create_default_context(cafile=str(certificate))
    seen = {"made": 0, "served": 0}

    async def answer(client: socket.socket) -> bytes:
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(
            sock=client, ssl=theirs, server_hostname="localhost"
        )
        writer.write(b"x")
        found = await reader.read(1)
        writer.close()
        return found

    async def story() -> list[bytes]:
        server = await loop.create_server(
            lambda: Counting(seen), "127.0.0.1", 0, ssl=ours
        )
        async with server:
            address = server.sockets[0].getsockname()
            clients = [socket.create_connection(address, 5) for _ in range(4)]
            return await asyncio.gather(*map(answer, clients))

    assert loop.run_until_complete(asyncio.wait_for(story(), 20)) == [b"x"] * 4


def test_a_closed_server_accepts_nothing(loop: AcceptingLoop) -> None:
    async def story() -> None:
        server = await loop.create_server(lambda: Counting({}), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 5)

    loop.run_until_complete(story())


def refusing() -> asyncio.BaseProtocol:
    raise OSError("lost")


def test_a_lost_connection_is_closed(loop: AcceptingLoop) -> None:
    """The task that opens it is kept until then: the loop refers to it weakly."""
    ours, theirs = socket.socketpair()
    factory = AcceptingFactory(loop, refusing, None)

    class Listener:
        waiting = [theirs]

        def accept(self) -> tuple[socket.socket, None]:
            if not self.waiting:
                raise BlockingIOError
            return self.waiting.pop(), None

    async def story() -> None:
        factory.accept(Listener())  # type: ignore[arg-type]
        (opening,) = factory.opening
        await opening
        await asyncio.sleep(0)
        assert factory.opening == set()

    loop.run_until_complete(story())
    assert theirs.fileno() == -1
    ours.close()
