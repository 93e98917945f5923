"""A real SMTP server for tests, which can be slow or refuse mails."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class Mailbox:
    """Received mails, and the server's behaviour."""

    port: int = 0
    pause: float = 0.0
    """Seconds before each mail is accepted."""
    refuses: bool = False
    mails: list[EmailMessage] = field(default_factory=list)

    def take(self, raw: bytes) -> str:
        time.sleep(self.pause)
        if self.refuses:
            return "554 5.7.1 not here"
        self.mails.append(message_from_bytes(raw, policy=policy.default))
        return "250 ok"

    def expect(self, number: int, seconds: float = 10.0) -> list[EmailMessage]:
        """Wait until that many mails arrived."""
        ends = time.monotonic() + seconds
        while len(self.mails) < number and time.monotonic() < ends:
            time.sleep(0.02)
        assert len(self.mails) >= number, f"{len(self.mails)} of {number} mails"
        return self.mails


class Handler(socketserver.StreamRequestHandler):
    """RFC 5321, as much as smtplib sends."""

    box: Mailbox

    def handle(self) -> None:
        self.say("220 here")
        while line := self.rfile.readline():
            word = line.strip().upper()[:4]
            if word == b"DATA":
                self.say("354 go on")
                self.say(self.box.take(self.content()))
            elif word == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def content(self) -> bytes:
        """The mail up to its final dot."""
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """One thread per session; none is joined."""

    daemon_threads = True
    block_on_close = False


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A mail server on a free port."""
    box = Mailbox()
    handler = type("BoxHandler", (Handler,), {"box": box})
    with Server(("127.0.0.1", 0), handler) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()
