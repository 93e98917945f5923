"""A proxy that adds the token: the conformance suite sends none."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep

STARTS_WITHIN = 10.0


class Proxy:
    """One request per connection: the head is rewritten, the body is copied."""

    def __init__(self, upstream: int, port: int, token: str) -> None:
        self.upstream, self.port = upstream, port
        self.added = f"Authorization: Bearer {token}\r\nConnection: close\r\n"

    async def serve(self) -> None:
        server = await asyncio.start_server(self.relay, "127.0.0.1", self.port)
        await server.serve_forever()

    async def relay(
        self, near: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        """One connection; closing either side closes both, which means cancel."""
        with suppress(asyncio.IncompleteReadError, OSError):
            head = await near.readuntil(b"\r\n\r\n")
            far, on = await asyncio.open_connection("127.0.0.1", self.upstream)
            on.write(self.rewritten(head.decode("latin-1")).encode("latin-1"))
            ways = [asyncio.create_task(p) for p in (pump(near, on), pump(far, back))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            on.close()
        back.close()

    def rewritten(self, head: str) -> str:
        """A foreign Host or Origin is passed on: the server has to refuse it."""
        own, theirs = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.upstream}"
        lines = head.split("\r\n")
        headers = [
            line.replace(own, theirs)
            for line in lines[1:-2]
            if not line.lower().startswith("connection:")
        ]
        return "\r\n".join([lines[0], *headers, self.added, ""])


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()


@contextmanager
def proxy(upstream: int, port: int, token: str) -> Iterator[str]:
    """The URL of a proxy running in a separate process."""
    command = [sys.executable, "-m", "tests.apps.conformance.proxy"]
    command += [str(upstream), str(port)]
    process = subprocess.Popen(command, env={**os.environ, "TOKEN": token})
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def wait_for(port: int) -> None:
    end = monotonic() + STARTS_WITHIN
    while monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        sleep(0.02)
    raise AssertionError(f"The proxy did not start on port {port}.")


if __name__ == "__main__":
    to, at = int(sys.argv[1]), int(sys.argv[2])
    asyncio.run(Proxy(to, at, os.environ["TOKEN"]).serve())
