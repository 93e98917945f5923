"""A receiver of webhooks in a thread, which answers as a test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """Where it listens, what it answers and what it got."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; then 200."""
    pause: float = 0.0
    """Seconds before each answer."""
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """(path, headers in lower case, body) of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=of-the-url"

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _path, _headers, body in self.got]

    @property
    def ids(self) -> list[str]:
        """The message ids, in the order of the requests."""
        return [headers["webhook-id"] for _path, headers, _body in self.got]

    def expect(self, number: int, seconds: float = 20.0) -> None:
        """Wait for that many requests."""
        ends = time.monotonic() + seconds
        while len(self.got) < number and time.monotonic() < ends:
            time.sleep(0.05)
        assert len(self.got) >= number, f"{len(self.got)} of {number} requests"


class Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(length)
        self.receiver.got.append((self.path, headers, body))
        time.sleep(self.receiver.pause)
        status = self.receiver.statuses.pop(0) if self.receiver.statuses else 200
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    """A receiver that answers with these statuses first."""
    receiver = Receiver(statuses=list(statuses))
    handler = type("ReceiverHandler", (Handler,), {"receiver": receiver})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
