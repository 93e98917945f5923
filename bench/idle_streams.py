"""What an idle stream costs: resident memory of a process with many of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench.processes import Server
from bench.report_page import table
from bench.servers import BenchServers, serving
from bench.wrk import LEGACY, MODERN, Load, message

STEPS = (500, 1000)
"""Streams that are open when the memory is read."""
WARM = 50
"""Streams that are opened and closed before, so that what is made once is there."""
LIMITS = ("MAX_STREAMS", "MAX_STREAMS_PER_USER", "MAX_STREAMS_PER_TOKEN")
SESSION_LIMITS = ("MAX_SESSIONS", "MAX_SESSIONS_PER_USER")
MANY = str(STEPS[-1] * 20)

Opener = Callable[[Server], socket.socket | None]


def exchange(server: Server, method: str, load: Load) -> tuple[socket.socket, str]:
    """Send one request on a new connection; the connection and the answer's begin.

    Raises RuntimeError if the answer is not 200.
    """
    body = load.bodies[0]
    headers = {"Host": f"127.0.0.1:{server.port}", **load.headers}
    headers["User-Agent"] = "bench/1.0"
    if server.tokens:
        headers["Authorization"] = f"Bearer {server.tokens[0]}"
    if body:
        headers["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    line.sendall(f"{method} /mcp HTTP/1.1\r\n{lines}\r\n{body}".encode())
    answer = line.recv(65536).decode("latin-1")
    if " 200 " not in answer.partition("\r\n")[0]:
        raise RuntimeError(f"{server.name}: {answer}")
    return line, answer


def open_listening(server: Server) -> socket.socket:
    """A stream of the 2026-07-28 protocol that waits for changed lists."""
    wanted = {"notifications": {"toolsListChanged": True}}
    load = message("subscriptions/listen", MODERN, wanted, "")
    return exchange(server, "POST", load)[0]


def open_session(server: Server) -> str:
    """The id of a new session of the 2025-11-25 protocol."""
    hello = {"protocolVersion": LEGACY, "capabilities": {"sampling": {}}}
    client = {"clientInfo": {"name": "bench", "version": "1"}}
    line, answer = exchange(
        server, "POST", message("initialize", LEGACY, {**hello, **client}, "")
    )
    line.close()
    lines = answer.split("\r\n")
    head = next(one for one in lines if one.lower().startswith("mcp-session-id:"))
    return head.partition(":")[2].strip()


def open_only_session(server: Server) -> None:
    """A session without a stream."""
    open_session(server)


def open_stream(server: Server) -> socket.socket:
    """The stream that a client of the 2025-11-25 protocol opens with GET."""
    load = message("", LEGACY, {}, "", open_session(server))
    return exchange(server, "GET", replace(load, bodies=("",)))[0]


KINDS: dict[str, Opener] = {
    "session of 2025-11-25 without a stream": open_only_session,
    "session with its GET stream": open_stream,
    "`subscriptions/listen` of 2026-07-28": open_listening,
}


def kib_of(server: Server, opener: Opener) -> tuple[float, float]:
    """KiB for each of the first and of the further streams."""
    with streams(server, opener, WARM):
        pass
    memory, figures = server.memory_mb(), []
    with ExitStack() as stack:
        for more in (STEPS[0], STEPS[1] - STEPS[0]):
            stack.enter_context(streams(server, opener, more))
            before, memory = memory, server.memory_mb()
            figures.append((memory - before) * 1024 / more)
    return figures[0], figures[1]


@contextmanager
def streams(server: Server, opener: Opener, count: int) -> Iterator[None]:
    """Keep this many open."""
    with ExitStack() as stack:
        for _ in range(count):
            opened = opener(server)
            if opened is not None:
                stack.enter_context(opened)
        yield


def idle_options() -> dict[str, str]:
    """Settings of a server that allows that many streams of one token."""
    return {**dict.fromkeys((*LIMITS, *SESSION_LIMITS), MANY), "MCP_SESSIONS": "on"}


def idle_streams(pool: BenchServers, rounds: int) -> str:
    """KiB of resident memory for one idle stream; each figure is of a new process."""
    bare = pool.bare(BENCH_SESSIONS="on")
    ours = [pool.portico(vendor) for vendor in pool.vendors]
    for server in ours:
        server.environment.update(idle_options())
    first, last = (f"{count:,}" for count in STEPS)
    head = [
        "KiB for each",
        *(s.name.removesuffix(", audit batch") for s in (bare, *ours)),
    ]
    rows = []
    for kind, opener in KINDS.items():
        cells = []
        for server in (bare, *ours):
            with serving(server):
                cells.append("{:.0f}, {:.0f}".format(*kib_of(server, opener)))
        rows.append([kind, *cells])
    note = f"The first figure is of {first} streams, the second of those up to {last}."
    return f"{table(head, rows)}\n\n{note}"
