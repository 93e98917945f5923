"""Many messages over open connections, each response checked against the commits.

Raw sockets, because a message must be sent microseconds after a commit.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.support.mcp_client import LEGACY, META, MODERN
from tests.support.server import Portico

SERVED, REFUSED, HIDDEN, LIMITED = "served", "refused", "hidden", "limited"
TOOL = "look"


def request_of(server: Portico, raw: str, tool: str = TOOL, **arguments: Any) -> bytes:
    """The bytes of a `tools/call`, of `look` unless another tool is named."""
    meta = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = json.dumps(message).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: {server.host}\r\n"
        f"authorization: Bearer {raw}\r\ncontent-type: application/json\r\n"
        "accept: application/json, text/event-stream\r\n"
        f"mcp-protocol-version: {MODERN}\r\nmcp-method: tools/call\r\n"
        f"mcp-name: {tool}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def value_of(fields: bytes, name: bytes) -> str:
    """A header of a response whose head is in lower case."""
    return fields.partition(b"\r\n" + name + b": ")[2].split(b"\r\n")[0].decode()


class RawConnection:
    """One kept-alive connection to one server."""

    def __init__(self, server: Portico) -> None:
        self.server = server
        self.socket = server.connected()
        self.held = b""
        self.request_id = ""
        """The X-Request-ID of the last response."""

    def send(self, request: bytes) -> None:
        """Send a request; a server closes an idle connection, so reconnect first."""
        if self.closed_by_peer():
            self.close()
            self.socket = self.server.connected()
        self.socket.sendall(request)

    def closed_by_peer(self) -> bool:
        """Read what arrived meanwhile; TLS sockets cannot peek, and get tickets."""
        timeout = self.socket.gettimeout()
        self.socket.settimeout(0)
        try:
            read = self.socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(timeout)
        self.held += read
        return not read

    def answer(self) -> str:
        """Served, refused (401), hidden, limited (arguments), or the raw response."""
        head = self.until(b"\r\n\r\n")
        fields = head.lower()
        self.request_id = value_of(fields, b"x-request-id")
        if b"transfer-encoding: chunked" in fields:
            body = self.chunks()
        else:
            body = self.take(int(value_of(fields, b"content-length")))
        if value_of(fields, b"connection") == "close":  # nginx, after 1,000 requests
            self.close()
            self.socket = self.server.connected()
        if head.startswith(b"HTTP/1.1 401"):
            return REFUSED
        if b"looks at" in body or b"waited" in body:
            return SERVED
        if b"Unknown tool" in body:
            return HIDDEN
        if b"arguments refused" in body:
            return LIMITED
        return f"{head[:12].decode()}: {body[:300].decode()}"

    def until(self, mark: bytes) -> bytes:
        while mark not in self.held:
            self.more()
        found, _, self.held = self.held.partition(mark)
        return found

    def take(self, length: int) -> bytes:
        while len(self.held) < length:
            self.more()
        found, self.held = self.held[:length], self.held[length:]
        return found

    def chunks(self) -> bytes:
        found = b""
        while size := int(self.until(b"\r\n"), 16):
            found += self.take(size)
            self.take(2)
        self.take(2)
        return found

    def more(self) -> None:
        """Read; an end in the middle of a response is an error."""
        read = self.socket.recv(65536)
        if not read:
            raise ConnectionError("the server hung up")
        self.held += read

    def close(self) -> None:
        self.socket.close()


@dataclass
class Subject:
    """A user whose access changes, and the history of its states."""

    name: str
    raw: str
    jti: str
    user_id: int
    tool: str = TOOL
    arguments: dict[str, Any] = field(default_factory=dict)
    times: list[tuple[float, float, str]] = field(default_factory=list)
    """(before the change, after its commit, the state from then on)."""
    session: str = ""
    """The id of a session of the older protocol, for all of its messages."""

    def __post_init__(self) -> None:
        self.times.append((0.0, 0.0, SERVED))

    def request(self, server: Portico) -> bytes:
        """The bytes of this user's call."""
        made = request_of(server, self.raw, self.tool, **self.arguments)
        if not self.session:
            return made
        newer, older = (f"mcp-protocol-version: {era}" for era in (MODERN, LEGACY))
        named = f"{older}\r\nmcp-session-id: {self.session}"
        return made.replace(newer.encode(), named.encode())

    def changing(self, state: str) -> None:
        """A change to `state` begins: until its commit both states are valid."""
        self.times.append((time.monotonic(), float("inf"), state))

    def changed(self) -> None:
        before, _, state = self.times[-1]
        self.times[-1] = (before, time.monotonic(), state)

    def possible(self, begun: float, ended: float) -> set[str]:
        """The valid results of a message of this time span."""
        found, times = set(), list(self.times)
        for number, (before, _after, state) in enumerate(times):
            later = times[number + 1 :]
            over = later[0][1] if later else float("inf")
            if before < ended and over > begun:
                found.add(state)
        return found


PAUSE = 0.03
"""Seconds between messages of one line: without it the load takes every processor."""


@dataclass
class BackgroundLoad:
    """Background load; every response is checked by the time of its message."""

    servers: list[Portico]
    subjects: list[Subject]
    lines: int = 2
    count: int = 0
    stale: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> BackgroundLoad:
        self.threads = [
            threading.Thread(target=self.beat, args=(server, number), daemon=True)
            for server in self.servers
            for number in range(self.lines)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(20)

    def beat(self, server: Portico, number: int) -> None:
        """Send messages one after another until stopped."""
        line = RawConnection(server)
        while not self.stop.wait(PAUSE):
            number = (number + 1) % len(self.subjects)
            subject = self.subjects[number]
            raw, started = subject.raw, time.monotonic()
            line.send(request_of(server, raw, subject.tool, **subject.arguments))
            result = line.answer()
            if raw == subject.raw:
                self.judge(subject, started, time.monotonic(), result)
        line.close()

    def judge(self, subject: Subject, begun: float, ended: float, given: str) -> None:
        """Record a result that no committed state explains."""
        self.count += 1
        if given not in subject.possible(begun, ended):
            self.stale.append(f"{subject.name}: {given} in passing")
