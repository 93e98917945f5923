"""A proxy that adds the token: the conformance suite sends none."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep


class Proxy:
    """One request a connection, head rewritten, all bytes after it as they come."""

    def __init__(self, upstream: int, port: int, token: str) -> None:
        self.upstream, self.port = upstream, port
        self.added = f"Authorization: Bearer {token}\r\nConnection: close\r\n"

    async def serve(self) -> None:
        """Until killed."""
        server = await asyncio.start_server(self.relay, "127.0.0.1", self.port)
        await server.serve_forever()

    async def relay(
        self, near: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        """One connection."""
        try:
            head = await near.readuntil(b"\r\n\r\n")
            far, on = await asyncio.open_connection("127.0.0.1", self.upstream)
            on.write(self.rewritten(head.decode("latin-1")).encode("latin-1"))
            upload = asyncio.create_task(pump(near, on))
            await pump(far, back)
            upload.cancel()
            on.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        back.close()

    def rewritten(self, head: str) -> str:
        """A foreign Host or Origin goes through: the server has to judge it."""
        own, theirs = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.upstream}"
        lines = head.split("\r\n")
        kept = [
            line.replace(own, theirs)
            for line in lines[1:-2]
            if not line.lower().startswith("connection:")
        ]
        return "\r\n".join([lines[0], *kept, self.added, ""])


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the end."""
    while chunk := await source.read(65536):
        sink.write(chunk)
        await sink.drain()


@contextmanager
def proxy(upstream: int, port: int, token: str) -> Iterator[str]:
    """The URL of a proxy running in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.conformance.proxy",
        str(upstream),
        str(port),
    ]
    process = subprocess.Popen(command, env={**os.environ, "TOKEN": token})
    end = monotonic() + 10
    while monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


if __name__ == "__main__":
    to, at = int(sys.argv[1]), int(sys.argv[2])
    asyncio.run(Proxy(to, at, os.environ["TOKEN"]).serve())
